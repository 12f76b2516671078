"""Putting packed caches into a model, and saying what it has."""

import logging

import mlx.core as mx
from mlx_lm.models import cache as mlx_lm_cache

from . import ops
from .attention import install
from .cache import BatchTurboQuantKVCache, Settings, TurboQuantKVCache

log = logging.getLogger("turboquant_cpp.mlx")

_MLA = "its cache holds latent rows (MLA), which its own code multiplies"
_OWN = "it computes its softmax itself"
# Models of mlx-lm 0.32.2 that do more with cached rows than give them to mx.fast.scaled_dot_product_attention, by module.
DENSE_MODELS = {
    "bailing_hybrid": _MLA,
    "deepseek_v2": _MLA,
    "deepseek_v3": _MLA,
    "deepseek_v32": _MLA,
    "gear": _OWN,
    "gemma2": _OWN,
    "glm4_moe_lite": _MLA,
    "iquestloopcoder": _OWN,
    "kimi_k3": _MLA,
    "kimi_linear": _MLA,
    "longcat_flash": _MLA,
    "minicpm3": _MLA,
    "minimax_m3_vl": _OWN,
    "mistral4": _MLA,
    "olmo": _OWN,
    "youtu_llm": _MLA,
}
_PACKED = (TurboQuantKVCache, BatchTurboQuantKVCache)


def _dense_reason(model):
    modules = {type(m).__module__.rpartition(".")[2] for _, m in model.named_modules()}
    for name in sorted(modules & DENSE_MODELS.keys()):
        return f"{name}: {DENSE_MODELS[name]}"
    return None


def _scales_of(calibration, preset, layer):
    """Channel scales of a layer's keys and values from a calibration file of `tq calibrate`."""
    if calibration is None:
        return None, None
    keys = "attn_k_centered" if ops.make_codec(preset, layer, 1, 64, 64, [], []).centered else "attn_k"
    return tuple(calibration.get(f"blk.{layer}.{name}.channel_scale") for name in (keys, "attn_v"))


def _read_calibration(calibration):
    return mx.load(calibration, format="gguf") if isinstance(calibration, str) else calibration


def _original_caches(model):
    if (make := getattr(model, "_turboquant_original_make_cache", None)) is not None:
        return make()
    if hasattr(type(model), "make_cache"):
        return type(model).make_cache(model)
    return [mlx_lm_cache.KVCache() for _ in model.layers]


def _packed(cache, layer, settings_of):
    """The cache itself, or a packed one if it is one that grows without limit."""
    if type(cache) is mlx_lm_cache.KVCache and (settings := settings_of(layer)):
        return TurboQuantKVCache(settings=settings)
    if type(cache) is mlx_lm_cache.CacheList:
        cache.caches = tuple(_packed(c, layer, settings_of) for c in cache.caches)
    return cache


def make_prompt_cache(model, preset="fast", calibration=None, layers=None):
    """Caches for one request, whatever the model was enabled with. layers: those to pack; None: all."""
    calibration = _read_calibration(calibration)
    dense = _dense_reason(model)
    made = {}

    def settings_of(layer):
        if layers is not None and layer not in layers:
            return None
        if layer not in made:
            made[layer] = Settings(preset, layer, *_scales_of(calibration, preset, layer), dense)
        return made[layer]

    return [_packed(cache, layer, settings_of) for layer, cache in enumerate(_original_caches(model))]


def enable(model, preset="fast", calibration=None, layers=None):
    """From now on mlx-lm makes packed caches for this model, in generation, batches, prompt caches and its server.

    preset: as in docs/presets.md. calibration: a file of `tq calibrate` for this model, or its arrays by name. layers:
    the layers to pack; None: all that have mlx-lm's KVCache. Layers with a sliding window keep mlx-lm's rotating cache.
    """
    calibration = _read_calibration(calibration)
    install()
    if "make_cache" in vars(model) and not hasattr(model, "_turboquant_preset"):
        model._turboquant_original_make_cache = model.make_cache
    model._turboquant_preset = preset
    caches = make_prompt_cache(model, preset, calibration, layers)
    settings = {}  # made once: codecs are shared by all caches of a layer

    def collect(cache):
        for each in getattr(cache, "caches", (cache,)):
            if isinstance(each, TurboQuantKVCache):
                settings[each.settings.layer] = each.settings

    for cache in caches:
        collect(cache)
    model.make_cache = lambda: [
        _packed(cache, layer, settings.get) for layer, cache in enumerate(_original_caches(model))
    ]
    log.info("%s", describe(caches))
    return model


def disable(model):
    """mlx-lm makes its own caches for this model again."""
    if "make_cache" in vars(model):
        del model.make_cache
    original = vars(model).pop("_turboquant_original_make_cache", None)
    vars(model).pop("_turboquant_preset", None)
    if original is not None:
        model.make_cache = original


# ---- saying what there is


def _leaves(cache):
    for each in cache if isinstance(cache, (list, tuple)) else [cache]:
        yield from _leaves(list(each.caches)) if hasattr(each, "caches") else [each]


def _count(names):
    return ", ".join(f"{names.count(n)} {n}" for n in dict.fromkeys(names))


def _bits(caches):
    """Bits per value that the arrays really take, if there are any."""
    filled = [c.packed for c in caches if c.packed is not None]
    cells = sum(
        sum(p.lengths) * p.codec.n_head_kv * (p.codec.head_dim_k + p.codec.head_dim_v) for p in filled
    )
    return 8 * sum(p.nbytes for p in filled) / cells if cells else None


def _preset_bits(caches):
    bits = [c.packed.codec.effective_bits for c in caches if c.packed is not None]
    return sum(bits) / len(bits) if bits else None


def describe(cache):
    """One line on a cache or a list of them: preset, bits per value, fused or dense and why."""
    leaves = list(_leaves(cache))
    packed = [c for c in leaves if isinstance(c, _PACKED)]
    others = [type(c).__name__ for c in leaves if not isinstance(c, _PACKED)]
    if not packed:
        return f"turboquant: no layer is packed ({_count(others)})"
    parts = [f"{len(packed)} of {len(leaves)} layers packed"]
    parts += [ops.title(p) for p in dict.fromkeys(c.settings.preset for c in packed)]
    if (bits := _preset_bits(packed)) is not None:
        parts.append(f"{bits:.2f} bits per value of whole blocks, {_bits(packed):.2f} with all that is allocated")
    reasons = dict.fromkeys(c.settings.dense_reason for c in packed)
    parts += [f"attention on dense rows ({r})" if r else f"attention fused on packed rows, {_device()}" for r in reasons]
    if others:
        parts.append(f"left as they are: {_count(others)}")
    return "turboquant: " + "; ".join(parts)


def _device():
    if mx.default_device() == mx.gpu:
        return "GPU"
    return f"CPU, {ops.n_workers()} threads"
