import os
import pathlib
import sys

import mlx.core as mx
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
mx.set_default_device(getattr(mx, os.environ.get("TQ_MLX_DEVICE", "cpu")))


@pytest.fixture(scope="session")
def model_folder():
    """The converted SmolLM2 (gguf_model.py); scripts/test-mlx makes it."""
    return os.environ["TQ_MLX_MODEL"]


@pytest.fixture(scope="session")
def loaded(model_folder):
    import mlx_lm

    return mlx_lm.load(model_folder)


@pytest.fixture
def smollm2(loaded):
    """Model and tokenizer; whatever a test has enabled is off again behind it."""
    import turboquant_cpp.mlx as tq

    yield loaded
    tq.disable(loaded[0])


@pytest.fixture(scope="session")
def loaded_again(model_folder):
    import mlx_lm

    return mlx_lm.load(model_folder)


@pytest.fixture
def small(loaded_again):
    """The first layers of SmolLM2, whose text means little but comes five times as fast: for what does not depend on it."""
    import turboquant_cpp.mlx as tq

    model, tokenizer = loaded_again
    model.model.layers = model.model.layers[:4]
    yield model, tokenizer
    tq.disable(model)
