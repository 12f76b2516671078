"""The graph nodes of the C++ extension as functions of arrays.

MLX's C++ interface differs between its releases, so an extension fits the release it was built for; importing it into
another one is refused here, before anything can go wrong.
"""

import mlx.core as mx

from . import _ext


def _version(number):
    return f"{number // 100000}.{number // 1000 % 100}.{number % 1000}"


def _check_version():
    built = _version(_ext.built_for_mlx)
    if mx.__version__.split(".dev")[0].split("+")[0] != built:
        raise ImportError(
            f"turboquant_cpp.mlx was built for MLX {built}, and this is MLX {mx.__version__}: "
            "pip install --force-reinstall --no-deps --no-build-isolation turboquant-cpp builds it anew"
        )


_check_version()

make_codec = _ext.make_codec
title = _ext.title
n_workers = _ext.n_workers
BLOCK_CELLS = _ext.block_cells
FORMAT_VERSION = _ext.format_version


def append(codec, side, streams, n_blocks, in_place, records, rows, exact=None):
    """Records and exact rows with new rows. streams: (first cell, number of rows) of each stream."""
    out, out_exact = mx.array(0), None if exact is None else mx.array(0)
    _ext.append(codec, side, streams, n_blocks, in_place, records, rows, exact, out, out_exact)
    return out, out_exact


def attend(codec, streams, q, keys, values, *, scale, softcap=0.0, causal=True, window=0, mask=None, sinks=None, exact=None):
    """streams: (cells, tokens, first cell with an exact row) of each stream. exact: of keys and of values, the rows
    kept before the tokens and the tokens' own."""
    out = mx.array(0)
    exact = exact or (None, None, None, None)
    _ext.attend(codec, streams, scale, softcap, causal, window, q, keys, values, mask, sinks, *exact, out)
    return out


def decode(codec, side, n, records, dtype, *, lengths=(), first_exact=(), exact=None):
    """Dense rows (streams, KV heads, n, head_dim)."""
    out = mx.array(0)
    _ext.decode(codec, side, n, list(lengths), list(first_exact), records, exact, mx.array(0, dtype), out)
    return out
