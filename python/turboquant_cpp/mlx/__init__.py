"""A packed KV cache of 2 to 8 bits per value for mlx-lm, without a fork and without patched files.

    import mlx_lm, turboquant_cpp.mlx as tq

    model, tokenizer = mlx_lm.load("...")
    tq.enable(model, preset="fast")
    mlx_lm.generate(model, tokenizer, "Hello")

docs/mlx.md says what it does and where it has limits.
"""

from .cache import BatchTurboQuantKVCache, TurboQuantKVCache
from .convert import from_kv_cache, from_mlx_vlm
from .errors import PromptCacheMismatch
from .model import describe, disable, enable, make_prompt_cache

__all__ = [
    "BatchTurboQuantKVCache",
    "PromptCacheMismatch",
    "TurboQuantKVCache",
    "describe",
    "disable",
    "enable",
    "from_kv_cache",
    "from_mlx_vlm",
    "make_prompt_cache",
]
