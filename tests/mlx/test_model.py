"""enable() and describe(), and models of other kinds than Llama (with random weights)."""

import importlib

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import cache as mlx_lm_cache

import turboquant_cpp.mlx as tq
from turboquant_cpp.mlx import attention

SIZES = {"hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100}
MODELS = {
    "gemma2": {"head_dim": 64, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 64.0},
    "gemma3_text": {"head_dim": 64, "sliding_window": 8, "sliding_window_pattern": 2},
    "gpt_oss": {"head_dim": 64, "sliding_window": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "rope_theta": 1e4},
    "stablelm": {"rope_theta": 1e4, "use_qkv_bias": False, "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5},
    "qwen3": {"head_dim": 64, "rms_norm_eps": 1e-6, "max_position_embeddings": 512, "rope_theta": 1e4, "tie_word_embeddings": True},
}


def random_model(name, n_layers=4):
    module = importlib.import_module(f"mlx_lm.models.{name}")
    args = module.ModelArgs.from_dict({"model_type": name, "num_hidden_layers": n_layers, **SIZES, **MODELS[name]})
    mx.random.seed(0)
    model = module.Model(args)
    mx.eval(model.parameters())
    return model


def logits(model, cache, chunks=((0, 20), (20, 21), (21, 22))):
    tokens = mx.array(np.random.default_rng(0).integers(1, 99, (1, 22)))
    return [np.array(model(tokens[:, a:b], cache=cache).astype(mx.float32)) for a, b in chunks]


@pytest.mark.parametrize("name", MODELS)
def test_models_like_with_the_dense_cache(name):
    model = random_model(name)
    wanted = logits(model, mlx_lm_cache.make_prompt_cache(model))
    tq.enable(model, "k8v8")
    for mine, theirs in zip(logits(model, mlx_lm_cache.make_prompt_cache(model)), wanted):
        assert np.abs(mine - theirs).max() < 0.02 * np.abs(theirs).max()


def test_layers_with_a_sliding_window_stay(caplog):
    model = random_model("gemma3_text")
    with caplog.at_level("INFO"):
        tq.enable(model, "fast")
    kinds = [type(c).__name__ for c in mlx_lm_cache.make_prompt_cache(model)]
    assert kinds == ["RotatingKVCache", "TurboQuantKVCache"] * 2
    assert "2 of 4 layers packed" in caplog.text and "left as they are: 2 RotatingKVCache" in caplog.text


def test_a_model_with_its_own_softmax_gets_dense_rows_and_says_so():
    model = random_model("gemma2")
    said = tq.describe(tq.make_prompt_cache(model, "k4v4"))
    assert "attention on dense rows (gemma2: it computes its softmax itself)" in said


def test_enable_and_disable():
    model = random_model("qwen3")
    tq.enable(model, "k4v4+3:k8v8", layers=[1, 3])
    caches = mlx_lm_cache.make_prompt_cache(model)
    assert [type(c).__name__ for c in caches] == ["KVCache", "TurboQuantKVCache"] * 2
    logits(model, caches)
    assert [caches[i].packed.codec.preset for i in (1, 3)] == ["k4v4", "k8v8"]
    assert "2 of 4 layers packed; k4v4+3:k8v8" in tq.describe(caches)
    tq.enable(model, "k8v8")  # again, with something else
    assert all(c.settings.preset == "k8v8" for c in mlx_lm_cache.make_prompt_cache(model))
    tq.disable(model)
    assert {type(c).__name__ for c in mlx_lm_cache.make_prompt_cache(model)} == {"KVCache"}
    with pytest.raises(ValueError, match="k9v9"):
        tq.enable(model, "k9v9")


def test_describe_tells_bits_and_how_attention_works():
    model = random_model("qwen3")
    caches = tq.make_prompt_cache(model, "fast")
    assert "fast (k4v4 centered, sinks=1 window=15)" in tq.describe(caches)
    logits(model, caches)
    said = tq.describe(caches)
    assert "4.25 bits per value of whole blocks" in said and "fused on packed rows" in said
    assert tq.describe(mlx_lm_cache.KVCache()) == "turboquant: no layer is packed (1 KVCache)"


@pytest.mark.parametrize("preset", ["k8v8", "k8cv8"])
def test_a_calibration_changes_codes_and_keeps_attention(tmp_path, preset):
    """Scales are folded into the rotation: outputs are as without, up to the codec's error; files say whose they are."""
    model = random_model("qwen3")
    scales = {}
    for layer in range(4):
        for name in ("attn_k", "attn_k_centered", "attn_v"):
            factors = np.exp2(np.random.default_rng(layer).integers(-1, 2, 128)).astype(np.float32)
            scales[f"blk.{layer}.{name}.channel_scale"] = mx.array(factors)
    file = str(tmp_path / "model.cal.gguf")
    mx.save_gguf(file, scales)
    wanted = logits(model, mlx_lm_cache.make_prompt_cache(model))
    caches = tq.make_prompt_cache(model, preset, calibration=file)
    for mine, theirs in zip(logits(model, caches), wanted):
        assert np.abs(mine - theirs).max() < 0.04 * np.abs(theirs).max()
    plain = tq.make_prompt_cache(model, preset)
    logits(model, plain)
    for side in ("keys", "values"):
        assert caches[0].packed.codec.fingerprint(side) != plain[0].packed.codec.fingerprint(side)
    restored = tq.TurboQuantKVCache.from_state(caches[0].state)
    assert restored.packed.codec.fingerprint("keys") == caches[0].packed.codec.fingerprint("keys")


def test_anything_else_that_a_model_does_with_rows_gets_dense_ones(caplog):
    cache = tq.TurboQuantKVCache("k8v8")
    new = mx.random.normal((1, 2, 10, 64))
    keys, _ = cache.update_and_fetch(new, new)
    attention.say_once.cache_clear()
    with caplog.at_level("WARNING"):
        np.testing.assert_allclose(np.array(new @ keys.swapaxes(-1, -2)), np.array(new @ new.swapaxes(-1, -2)), atol=1.0)
        assert (keys @ mx.ones((64, 1))).shape == (1, 2, 10, 1) and keys[..., :3].shape == (1, 2, 10, 3)
    assert "dense keys: the model asks for swapaxes" in caplog.text
