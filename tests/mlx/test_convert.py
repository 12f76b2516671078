"""Caches of others, packed. mlx_vlm_state.npz was made by the codecs of mlx-vlm 0.7.10: five Gaussian rows of two heads,
keys of 64 dims and 3 bits (signs and a Hadamard transform), values of 80 dims and 4 bits (a rotation matrix)."""

import pathlib
import types

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import KVCache
from rows import as_floats, rows

import turboquant_cpp.mlx as tq
from turboquant_cpp.mlx.convert import decode_indices, unpack_indices


def relative_error(a, b):
    a, b = as_floats(a), as_floats(b)
    return np.square(a - b).mean() / np.square(b).mean()


def test_from_kv_cache():
    cache = KVCache()
    k, v = rows(1, 1, 2, 150, 64), rows(2, 1, 2, 150, 64)
    cache.update_and_fetch(k, v)
    cache.trim(20)
    made = tq.from_kv_cache(cache, "k8v8")
    assert made.offset == 130
    assert relative_error(made.packed.dense("keys", 130, mx.float32), k[:, :, :130]) < 1e-3
    assert tq.from_kv_cache(KVCache()).empty()


@pytest.mark.parametrize("bits", range(1, 9))
def test_indices_spill_over_words(bits):
    indices = np.random.default_rng(bits).integers(0, 1 << bits, (3, 80))
    words = np.zeros((3, -(-80 * bits // 32)), np.uint32)
    for row, values in enumerate(indices):
        number = sum(int(v) << (i * bits) for i, v in enumerate(values))
        words[row] = [(number >> (32 * w)) & 0xFFFFFFFF for w in range(words.shape[1])]
    np.testing.assert_array_equal(np.array(unpack_indices(mx.array(words), bits, 80)), indices)


@pytest.fixture
def mlx_vlm_cache():
    saved = np.load(pathlib.Path(__file__).with_name("mlx_vlm_state.npz"))

    def side(name):
        at = {key.removeprefix(name + "_"): mx.array(saved[key]) for key in saved if key.startswith(name + "_")}
        codec = types.SimpleNamespace(dim=at["rows"].shape[-1], bits=int(saved[f"{name}_bits"]), codebook=at["codebook"])
        codec.signs = at.get("signs")
        codec.rotation = at["rotation"].astype(mx.float32) if "rotation" in at else None
        return types.SimpleNamespace(norms=at["norms"], indices=at["indices"]), codec, at["rows"]

    (keys, key_codec, key_rows), (values, value_codec, value_rows) = side("keys"), side("values")
    cache = types.SimpleNamespace(keys=keys, values=values, key_codec=key_codec, value_codec=value_codec, offset=5)
    return cache, key_rows, value_rows


def test_rows_of_mlx_vlm(mlx_vlm_cache):
    cache, key_rows, value_rows = mlx_vlm_cache
    keys = decode_indices(cache.keys.norms, cache.keys.indices, cache.key_codec)
    np.testing.assert_allclose(as_floats(keys), as_floats(key_rows), atol=1e-5)
    values = decode_indices(cache.values.norms, cache.values.indices, cache.value_codec)
    np.testing.assert_allclose(as_floats(values), as_floats(value_rows), atol=5e-3)  # its matrix is stored in halves


def test_from_mlx_vlm(mlx_vlm_cache):
    cache, key_rows, value_rows = mlx_vlm_cache
    made = tq.from_mlx_vlm(cache, "k8v8")
    assert made.offset == 5
    for side, wanted in (("keys", key_rows), ("values", value_rows)):
        assert relative_error(made.packed.dense(side, 5, mx.float32), wanted) < 1e-3
    cache.keys = types.SimpleNamespace(radii=None)
    with pytest.raises(ValueError, match="only norms and indices are known"):
        tq.from_mlx_vlm(cache)


def test_a_state_of_another_width_is_refused(mlx_vlm_cache):
    cache, _, _ = mlx_vlm_cache
    cache.key_codec.bits = 4
    with pytest.raises(ValueError, match=r"indices of shape \(1, 2, 5, 6\) for vectors of 64 indices of 4 bits"):
        tq.from_mlx_vlm(cache)
