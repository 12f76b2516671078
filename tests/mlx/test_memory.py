"""What a cache takes, and that no dense keys or values exist beside it."""

import subprocess
import sys
import textwrap

import mlx.core as mx
import pytest
from rows import rows

import turboquant_cpp.mlx as tq

HEADS, DIM, CELLS = 8, 128, 4096


def bits(cache):
    return 8 * cache.nbytes / (2 * HEADS * DIM * CELLS)


def filled(preset, n, chunk=512):
    cache = tq.TurboQuantKVCache(preset)
    for first in range(0, n, chunk):
        new = rows(first, 1, HEADS, min(chunk, n - first), DIM)
        cache.update_and_fetch(new, new)
        mx.eval(cache.packed.arrays)
        cache.state
    return cache


# As docs/presets.md has it, with the reserve of 16 rows that caches here have: 16 * 32 / 4096 more with `fast`.
@pytest.mark.parametrize("preset,wanted", [("k4v4", 4.1875), ("k3v2", 2.6875), ("k8v8", 8.1875), ("fast", 4.22 + 0.125)])
def test_nbytes_of_4096_tokens(preset, wanted):
    assert bits(filled(preset, CELLS)) == pytest.approx(wanted, rel=0.02)
    assert f"{bits(filled(preset, CELLS)):.2f} with all that is allocated" in tq.describe(filled(preset, CELLS))


GROWTH = """
    import ctypes, os
    import mlx.core as mx, numpy as np
    import turboquant_cpp.mlx as tq
    mx.set_default_device(mx.cpu)
    mx.set_cache_limit(0)
    HEADS, DIM, CELLS, LAYERS = 8, 128, 4096, 24

    def resident():
        ctypes.CDLL(None).malloc_trim(0)  # what the C library keeps of freed memory is not the cache's
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    new = mx.array(np.random.default_rng(0).standard_normal((1, HEADS, 256, DIM)).astype(np.float16))
    def fill(cache):
        for _ in range(CELLS // 256):
            cache.update_and_fetch(new, new)
            mx.eval(cache.packed.arrays)
            cache.state
        return cache

    warm = fill(tq.TurboQuantKVCache("k4v4"))  # code, threads and scratch memory are there from now on
    before, active = resident(), mx.get_active_memory()
    caches = [fill(tq.TurboQuantKVCache("k4v4")) for _ in range(LAYERS)]
    nbytes = sum(c.nbytes for c in caches)
    print(nbytes, mx.get_active_memory() - active, resident() - before)
"""


def test_growth_of_the_process():
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GROWTH)], check=True, capture_output=True, text=True, timeout=300
    ).stdout
    nbytes, active, resident = map(int, out.split())
    effective = 24 * 2 * HEADS * DIM * CELLS * 4.1875 / 8
    assert nbytes == pytest.approx(effective, rel=0.02)
    assert active == pytest.approx(effective, rel=0.02)
    assert resident == pytest.approx(effective, rel=0.02)


@pytest.mark.parametrize("preset", ["k4v4", "fast"])
@pytest.mark.parametrize("pipelined", [False, True])
def test_a_decode_step_allocates_no_dense_rows(preset, pipelined):
    """Dense keys of this layer are 8 MiB in halves, its packed ones 2 MiB: a step takes less than either, so that it
    neither decodes nor copies; also where the step before has not ended, as in mlx-lm's generation."""
    cache = filled(preset, CELLS - 16)
    q = rows(1, 1, 4 * HEADS, 1, DIM, dtype=mx.float16)
    new = rows(2, 1, HEADS, 1, DIM, dtype=mx.float16)
    mx.eval(q, new)

    def step(q):
        packed = cache.update_and_fetch(new, new)
        return mx.fast.scaled_dot_product_attention(q, *packed, scale=0.1)

    q = step(q)
    mx.eval(q)
    records = cache.packed.keys.nbytes
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    for _ in range(8):
        next_q = step(q)
        if pipelined:
            mx.async_eval(next_q)
        mx.eval(q)
        q = next_q
    mx.eval(q)
    assert cache.packed.keys.nbytes == records
    assert mx.get_peak_memory() - before < records // 2


def test_a_prefill_step_allocates_no_dense_rows():
    cache = filled("k4v4", CELLS - 128)
    q, new = rows(1, 1, 4 * HEADS, 32, DIM, dtype=mx.float16), rows(2, 1, HEADS, 32, DIM, dtype=mx.float16)
    mx.eval(q, new)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    packed = cache.update_and_fetch(new, new)
    mx.eval(mx.fast.scaled_dot_product_attention(q, *packed, scale=0.1, mask="causal"))
    dense_keys = 2 * HEADS * DIM * CELLS
    assert mx.get_peak_memory() - before < dense_keys


def test_growth_is_by_whole_blocks_and_amortized():
    cache = tq.TurboQuantKVCache("k4v4")
    sizes = set()
    for _ in range(600):
        new = rows(0, 1, 1, 16, 64)
        cache.update_and_fetch(new, new)
        sizes.add(cache.packed.keys.shape[1])
        assert cache.packed.keys.shape[1] * 64 <= cache.offset + max(256, cache.offset // 16 + 256)
    assert len(sizes) < 40
