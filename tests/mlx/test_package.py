"""What is installed."""

import mlx.core as mx
import pytest

from turboquant_cpp.mlx import ops


def test_another_mlx_is_refused(monkeypatch):
    monkeypatch.setattr(mx, "__version__", "0.99.1")
    with pytest.raises(ImportError, match=r"built for MLX 0\.32\.4, and this is MLX 0\.99\.1"):
        ops._check_version()


def test_arrays_alone_cross():
    codec = ops.make_codec("k4v4", 0, 2, 64, 64, [], [])
    with pytest.raises(TypeError, match="an mlx.core.array is needed"):
        ops.append(codec, "keys", [(0, 1)], 1, False, [1, 2], [3])
