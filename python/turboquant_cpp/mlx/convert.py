"""Packed caches from those of others."""

import mlx.core as mx

from .cache import TurboQuantKVCache


def from_kv_cache(cache, preset="fast", layer=0):
    """What mlx-lm's KVCache holds, packed."""
    made = TurboQuantKVCache(preset, layer)
    if cache.offset > 0:
        made.update_and_fetch(cache.keys[..., : cache.offset, :], cache.values[..., : cache.offset, :])
        made._last = None
    return made
