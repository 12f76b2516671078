"""Packed caches from those of others."""

import math

import mlx.core as mx

from .cache import TurboQuantKVCache


def _filled(keys, values, preset, layer):
    made = TurboQuantKVCache(preset, layer)
    made.update_and_fetch(keys, values)
    made._last = None
    return made


def from_kv_cache(cache, preset="fast", layer=0):
    """What mlx-lm's KVCache holds, packed."""
    if cache.offset == 0:
        return TurboQuantKVCache(preset, layer)
    return _filled(cache.keys[..., : cache.offset, :], cache.values[..., : cache.offset, :], preset, layer)


def unpack_indices(words, bits, n):
    """The n indices of each vector from a stream of bits in uint32 words, lowest bit first: (..., words) -> (..., n)."""
    first = mx.arange(n) * bits
    word, shift = first // 32, (first % 32).astype(mx.uint32)
    padded = mx.pad(words.astype(mx.uint32), [(0, 0)] * (words.ndim - 1) + [(0, 1)])
    low = mx.take(padded, word, axis=-1) >> shift
    # Two shifts, since one by 32 is not defined.
    high = (mx.take(padded, word + 1, axis=-1) << (31 - shift)) << mx.array(1, mx.uint32)
    return (low | high) & mx.array((1 << bits) - 1, mx.uint32)


def decode_indices(norms, indices, codec):
    """Rows (..., codec.dim) of vectors that are stored as a norm and indices into a codebook of rotated directions.

    codec: mlx-vlm's, or anything with its `dim`, `bits`, `codebook` (2^bits levels) and either `signs` (the rotation is
    these and a Hadamard transform) or `rotation` (dim, dim).
    """
    if norms.shape != indices.shape[:-1] or indices.shape[-1] != -(-codec.dim * codec.bits // 32):
        raise ValueError(
            f"norms of shape {tuple(norms.shape)} and indices of shape {tuple(indices.shape)} for vectors of "
            f"{codec.dim} indices of {codec.bits} bits"
        )
    directions = mx.take(codec.codebook, unpack_indices(indices, codec.bits, codec.dim), axis=0)
    if getattr(codec, "signs", None) is not None:
        directions = mx.hadamard_transform(directions, scale=1 / math.sqrt(codec.dim)) * codec.signs
    else:
        directions = directions @ codec.rotation
    return directions * norms[..., None].astype(mx.float32)


def from_mlx_vlm(cache, preset="fast", layer=0):
    """What a TurboQuantKVCache of mlx-vlm with whole bits holds, in our codes.

    cache: it, or anything with its `keys` and `values` (each a state of `norms` (B, heads, cells) and `indices`),
    `key_codec`, `value_codec` and `offset`.
    """
    if cache.offset == 0:
        return TurboQuantKVCache(preset, layer)
    rows = []
    for side, state, codec in (("keys", cache.keys, cache.key_codec), ("values", cache.values, cache.value_codec)):
        if not hasattr(state, "norms") or not hasattr(state, "indices"):
            raise ValueError(f"{side} in a state of {type(state).__name__}; only norms and indices are known")
        cells = slice(0, cache.offset)
        rows.append(decode_indices(state.norms[:, :, cells], state.indices[:, :, cells], codec))
    return _filled(*rows, preset, layer)
