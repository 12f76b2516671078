"""Append, attend and decode give the bits of libturboquant called directly on the same rows (scalar kernels, one thread)."""

import mlx.core as mx
import numpy as np
import pytest
from oracle import Oracle
from rows import as_floats, causal_mask, error_bound, exact_attention, rows

import turboquant_cpp.mlx as tq
from turboquant_cpp.mlx import attention

sdpa = attention.scaled_dot_product_attention


def feed(cache, oracle, seed, n, heads, dk, dv, streams=1, dtype=mx.float32):
    """The same new rows into both; returns what the cache's update gave."""
    k, v = rows(seed, streams, heads, n, dk, dtype=dtype), rows(seed + 1, streams, heads, n, dv, dtype=dtype)
    oracle.append(as_floats(k), as_floats(v))
    return cache.update_and_fetch(k, v)


def same_bits(a, b):
    np.testing.assert_array_equal(as_floats(a).view(np.uint32), np.asarray(b, np.float32).view(np.uint32))


SCALAR = [f"k{k}v{v}" for k in range(2, 9) for v in range(2, 9)]


@pytest.mark.parametrize("preset", [*SCALAR, "k4cv4", "k3ctv3t", "fast", "tiny", "k4v4+sink4", "k4v4+recent5"])
def test_presets(preset):
    heads, dk, dv, group = 2, 64, 64, 3
    cache, oracle = tq.TurboQuantKVCache(preset), Oracle(preset + "+reserve16" if "recent" in preset else preset, heads, dk, dv, 1024)
    for step, n in enumerate((130, 1, 2, 1)):
        k, v = feed(cache, oracle, 10 * step, n, heads, dk, dv)
        q = rows(99 + step, 1, heads * group, n, dk)
        same_bits(sdpa(q, k, v, scale=0.125, mask="causal" if n > 1 else None), oracle.attend(as_floats(q), 0.125))
    assert cache.offset == 134


@pytest.mark.parametrize("dk,dv", [(64, 64), (80, 80), (96, 96), (128, 128), (256, 256), (128, 64), (80, 128), (96, 256)])
@pytest.mark.parametrize("group", [1, 3, 4, 8, 16])
def test_shapes(dk, dv, group):
    heads = 2
    cache, oracle = tq.TurboQuantKVCache("fast"), Oracle("fast+reserve16", heads, dk, dv, 512)
    for step, n in enumerate((70, 1)):
        k, v = feed(cache, oracle, step, n, heads, dk, dv)
        q = rows(9 + step, 1, heads * group, n, dk)
        out = sdpa(q, k, v, scale=dk**-0.5, mask="causal" if n > 1 else None)
        assert out.shape == (1, heads * group, n, dv)
        same_bits(out, oracle.attend(as_floats(q), dk**-0.5))


BORDERS = [1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 2048, 4095, 4096]


@pytest.mark.parametrize("cells", BORDERS)
@pytest.mark.parametrize("preset", ["k4v4", "fast"])
def test_lengths(preset, cells):
    """A prompt of so many tokens and one more token; and the output is within the bound that the library states."""
    heads, dim = 1, 64
    cache, oracle = tq.TurboQuantKVCache(preset), Oracle(preset + "+reserve16" * (preset == "fast"), heads, dim, dim, 8192)
    k, v = feed(cache, oracle, 1, cells, heads, dim, dim)
    if cells <= 1025:  # queries of all of a long prompt take their time on one thread
        q = rows(5, 1, 4, cells, dim)
        same_bits(sdpa(q, k, v, scale=0.125, mask="causal"), oracle.attend(as_floats(q), 0.125))
    k, v = feed(cache, oracle, 2, 1, heads, dim, dim)
    assert k.shape == (1, heads, cells + 1, dim) and cache.offset == cells + 1
    q = rows(6, 1, 4, 1, dim)
    out = sdpa(q, k, v, scale=0.125)
    same_bits(out, oracle.attend(as_floats(q), 0.125))
    dense_k, dense_v = (as_floats(x.view.dense(x.side)) for x in (k, v))
    bound = error_bound(as_floats(q), dense_k, dense_v, 0.125, 4)
    assert np.abs(as_floats(out) - exact_attention(as_floats(q), dense_k, dense_v, 0.125)).max() <= bound


@pytest.mark.parametrize("preset", ["k4v4", "k8cv8", "fast"])
def test_decoded_rows(preset):
    cache, oracle = tq.TurboQuantKVCache(preset), Oracle(preset, 3, 64, 80, 512)
    k, v = feed(cache, oracle, 3, 150, 3, 64, 80)
    exact = cache.packed.codec.n_slots > 0
    for mine, theirs in zip((k, v), oracle.read(150)):
        mine = as_floats(mine.view.dense(mine.side))[0]
        if exact:  # sinks and the window are decoded to the rows that were kept
            mine, theirs = mine[:, 1:119], theirs[:, 1:119]
        same_bits(mx.array(mine), theirs)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_floats(dtype):
    cache, oracle = tq.TurboQuantKVCache("fast"), Oracle("fast+reserve16", 2, 64, 64, 512)
    k, v = feed(cache, oracle, 1, 100, 2, 64, 64, dtype=dtype)
    q = rows(2, 1, 4, 100, 64, dtype=dtype)
    out = sdpa(q, k, v, scale=0.125, mask="causal")
    assert out.dtype == dtype
    same_bits(out, as_floats(mx.array(oracle.attend(as_floats(q), 0.125)).astype(dtype)))


@pytest.mark.parametrize("preset", ["k4v4", "fast"])
@pytest.mark.parametrize("n", [1, 5])
def test_masks(preset, n):
    cells = 200
    cache, oracle = tq.TurboQuantKVCache(preset), Oracle(preset + "+reserve16" * (preset == "fast"), 2, 64, 64, 512)
    feed(cache, oracle, 1, cells - n, 2, 64, 64)
    k, v = feed(cache, oracle, 3, n, 2, 64, 64)
    q = rows(5, 1, 4, n, 64)
    rng = np.random.default_rng(0)
    seen = rng.random((n, cells)) < 0.7
    added = np.where(seen, rng.standard_normal((n, cells)), -np.inf).astype(np.float16)
    boolean = np.where(seen, 0, -np.inf).astype(np.float16)
    for mask, wanted in (
        (mx.array(seen), boolean),
        (mx.array(seen)[None, None], boolean),
        (mx.array(added), added),
        (mx.array(added.astype(np.float32))[None], added),
    ):
        out = sdpa(q, k, v, scale=0.125, mask=mask)
        same_bits(out, oracle.attend(as_floats(q), 0.125, causal=False, mask=wanted[None]))
    if n > 1:  # without a mask every query sees every cell
        same_bits(sdpa(q, k, v, scale=0.125), oracle.attend(as_floats(q), 0.125, causal=False))


@pytest.mark.parametrize("n", [1, 90])
def test_sliding_window(n):
    """The mask that mlx-lm's models ask the cache for is not read: attention takes it as a window."""
    cache, oracle = tq.TurboQuantKVCache("fast"), Oracle("fast+reserve16", 2, 64, 64, 512)
    feed(cache, oracle, 1, 150, 2, 64, 64)
    mask = cache.make_mask(n, window_size=100)
    np.testing.assert_array_equal(np.array(mask), causal_mask(n, 150 + n, 100))
    k, v = feed(cache, oracle, 2, n, 2, 64, 64)
    q = rows(3, 1, 4, n, 64)
    out = sdpa(q, k, v, scale=0.125, mask=mask)
    same_bits(out, oracle.attend(as_floats(q), 0.125, window=100))
    as_array = sdpa(q, k, v, scale=0.125, mask=mx.array(np.array(mask)))  # the same mask as any array
    same_bits(as_array, as_floats(out))


def test_sink_logits():
    cache, oracle = tq.TurboQuantKVCache("k4v4"), Oracle("k4v4", 2, 64, 64, 512)
    k, v = feed(cache, oracle, 1, 100, 2, 64, 64)
    q, sinks = rows(2, 1, 4, 100, 64), mx.array([0.5, -1.0, 2.0, 0.0])
    out = sdpa(q, k, v, scale=0.125, mask="causal", sinks=sinks)
    same_bits(out, oracle.attend(as_floats(q), 0.125, sinks=np.array(sinks)))


def test_a_mask_for_each_head_goes_to_dense_rows(caplog):
    cache = tq.TurboQuantKVCache("k8v8")
    k, v = rows(1, 1, 2, 100, 64), rows(2, 1, 2, 100, 64)
    q, mask = rows(3, 1, 4, 2, 64), mx.array(np.random.default_rng(0).random((1, 4, 2, 102)) < 0.5)
    cache.update_and_fetch(k, v)
    packed = cache.update_and_fetch(rows(4, 1, 2, 2, 64), rows(5, 1, 2, 2, 64))
    attention.say_once.cache_clear()
    with caplog.at_level("WARNING"):
        for _ in range(2):
            out = sdpa(q, *packed, scale=0.125, mask=mask)
    assert [r.getMessage() for r in caplog.records].count(caplog.records[0].getMessage()) == 1
    assert "differs from head to head" in caplog.text
    dense = [as_floats(x.view.dense(x.side)) for x in packed]
    np.testing.assert_allclose(as_floats(out), exact_attention(as_floats(q), *dense, 0.125, np.array(mask)), atol=1e-5)


def test_ragged_streams():
    """Streams of different lengths in one call have the bits of each by itself."""
    batch = tq.BatchTurboQuantKVCache([0, 0, 0], tq.cache.Settings("fast"))
    oracle = Oracle("fast+reserve16", 2, 64, 64, 1024, n_stream=3)
    counts = [200, 3, 70]
    batch.prepare(lengths=counts, right_padding=[0, 197, 130])
    for first in range(0, 200, 64):
        n = min(64, 200 - first)
        now = [max(0, min(n, c - first)) for c in counts]
        k, v, q = rows(first, 3, 2, n, 64), rows(first + 1, 3, 2, n, 64), rows(first + 2, 3, 4, n, 64)
        mask = batch.make_mask(n)
        packed = batch.update_and_fetch(k, v)
        oracle.append(as_floats(k), as_floats(v), now)
        same_bits(sdpa(q, *packed, scale=0.125, mask=mask), oracle.attend(as_floats(q), 0.125, tokens=now))
    batch.finalize()
    assert batch.offset.tolist() == counts
    k, v, q = (rows(7 + i, 3, h, 1, 64) for i, h in enumerate((2, 2, 4)))
    mask = batch.make_mask(1)
    packed = batch.update_and_fetch(k, v)
    oracle.append(as_floats(k), as_floats(v))
    same_bits(sdpa(q, *packed, scale=0.125, mask=mask), oracle.attend(as_floats(q), 0.125))


@pytest.mark.parametrize("preset", ["k4v4", "fast"])
def test_truncate_to_each_border_and_go_on(preset):
    cache = tq.TurboQuantKVCache(preset)
    oracle = Oracle(preset + "+reserve16" * (preset == "fast"), 2, 64, 64, 2048)
    feed(cache, oracle, 1, 1100, 2, 64, 64)
    for step, length in enumerate((1099, 1025, 1024, 1023, 513, 512, 511, 257, 255, 129, 128, 65, 64, 63, 1, 0)):
        assert cache.trim(cache.offset - length) > 0
        oracle.truncate(length)
        k, v = feed(cache, oracle, 10 * step, 2, 2, 64, 64)
        assert cache.offset == length + 2
        q = rows(step, 1, 4, 2, 64)
        out = as_floats(sdpa(q, k, v, scale=0.125, mask="causal"))
        wanted = oracle.attend(as_floats(q), 0.125)
        if preset == "k4v4":
            same_bits(mx.array(out), wanted)
        else:  # which rows of a window are left depends on how it came to this length
            np.testing.assert_allclose(out, wanted, atol=0.15)
        cache.trim(2)
        oracle.truncate(length)


def test_errors_name_the_shape():
    cache = tq.TurboQuantKVCache("k4v4")
    with pytest.raises(ValueError, match="head_dim"):
        cache.update_and_fetch(rows(1, 1, 2, 3, 40), rows(1, 1, 2, 3, 40))
    with pytest.raises(ValueError, match="float32, float16 or bfloat16"):
        tq.TurboQuantKVCache("k4v4").update_and_fetch(mx.zeros((1, 2, 3, 64), mx.int32), mx.zeros((1, 2, 3, 64), mx.int32))
    cache = tq.TurboQuantKVCache("k4v4")
    k, v = cache.update_and_fetch(rows(1, 1, 2, 3, 64), rows(2, 1, 2, 3, 64))
    with pytest.raises(ValueError, match=r"queries of shape \(1, 4, 3, 80\)"):
        sdpa(rows(3, 1, 4, 3, 80), k, v, scale=1.0, mask="causal")
    with pytest.raises(tq.PromptCacheMismatch, match="n_head_kv is 3; expected 2"):
        cache.update_and_fetch(rows(1, 1, 3, 3, 64), rows(2, 1, 3, 3, 64))
    with pytest.raises(ValueError, match=r"a mask of shape \(3, 7\)"):
        sdpa(rows(3, 1, 4, 3, 64), k, v, scale=1.0, mask=mx.zeros((3, 7)))
    with pytest.raises(ValueError, match="k4v4, k5v3"):
        tq.TurboQuantKVCache("k9v4")


def test_gradients_and_vmap_are_refused():
    def loss(k):
        cache = tq.TurboQuantKVCache("k4v4")
        packed = cache.update_and_fetch(k, k)
        return sdpa(k, *packed, scale=1.0, mask="causal").sum()

    k = rows(1, 1, 2, 3, 64)
    with pytest.raises(RuntimeError, match="no gradient: packed codes are not differentiable"):
        mx.eval(mx.grad(loss)(k))
    with pytest.raises(RuntimeError, match="no vmap: give all sequences at once"):
        mx.eval(mx.vmap(loss)(k[None]))


def test_plain_arrays_go_to_mlx():
    q = rows(1, 1, 2, 3, 64)
    np.testing.assert_array_equal(
        as_floats(mx.fast.scaled_dot_product_attention(q, q, q, scale=1.0, mask="causal")),
        as_floats(attention._original(q, q, q, scale=1.0, mask="causal")),
    )
