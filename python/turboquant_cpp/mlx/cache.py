"""The caches, with the interface of mlx-lm's own (mlx_lm/models/cache.py)."""

import mlx.core as mx
from mlx_lm.models import cache as mlx_lm_cache

from . import ops
from .attention import install, remember_mask
from .errors import PromptCacheMismatch
from .streams import PackedStreams

FILE_FORMAT = 1  # of a cache's state

_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def _name(dtype):
    return str(dtype).removeprefix("mlx.core.")


class Settings:
    """How a layer's cache is made: what users name, and what the first rows say."""

    def __init__(self, preset="fast", layer=0, key_scales=None, value_scales=None, dense_reason=None):
        self.preset = preset
        self.layer = layer
        self.key_scales = key_scales
        self.value_scales = value_scales
        self.dense_reason = dense_reason  # why attention of this model works on dense rows; None: it does not
        self._codecs = {}
        ops.title(preset)  # raises what is wrong with it

    def codec(self, n_head_kv, head_dim_k, head_dim_v):
        shape = (n_head_kv, head_dim_k, head_dim_v)
        if shape not in self._codecs:
            scales = ([] if s is None else s.tolist() for s in (self.key_scales, self.value_scales))
            self._codecs[shape] = ops.make_codec(self.preset, self.layer, *shape, *scales)
        return self._codecs[shape]

    @property
    def identity(self):
        """Caches with the same one can be in one batch."""
        scales = tuple(None if s is None else tuple(s.tolist()) for s in (self.key_scales, self.value_scales))
        return self.preset, self.layer, scales


def _check_field(field, found, expected):
    if found != expected:
        raise PromptCacheMismatch(field, found, expected)


class _PackedCache(mlx_lm_cache._BaseCache):
    """What a single cache and a batch have in common."""

    settings: Settings
    packed: PackedStreams  # None before the first rows
    dtype = None  # of the rows that came
    _last = None  # what the queries of the last update see

    def _store(self, keys, values, counts):
        if self.packed is None:
            self.packed = self._new_streams(keys, values)
        self._check_rows(keys, values)
        self.dtype = keys.dtype
        self._last = None
        view = self.packed.append(keys, values, counts)
        self._last = view
        return self._rows(view)

    def _rows(self, view):
        if self.settings.dense_reason:
            return view.dense("keys"), view.dense("values")
        return view.rows()

    def _new_streams(self, keys, values):
        codec = self.settings.codec(keys.shape[1], keys.shape[3], values.shape[3])
        return PackedStreams(codec, keys.shape[0])

    def _check_rows(self, keys, values):
        codec = self.packed.codec
        _check_field("batch size", keys.shape[0], self.packed.n_stream)
        _check_field("n_head_kv", keys.shape[1], codec.n_head_kv)
        _check_field("head_dim of keys", keys.shape[3], codec.head_dim_k)
        _check_field("head_dim of values", values.shape[3], codec.head_dim_v)

    def keys_and_values(self):
        """For layers that attend to another layer's cache, after its update."""
        if self._last is None:
            raise ValueError("keys_and_values() is for after an update, and there was none")
        return self._rows(self._last)

    def is_trimmable(self):
        return True

    def empty(self):
        return self.packed is None

    @property
    def nbytes(self):
        return 0 if self.packed is None else self.packed.nbytes

    # ---- state

    @property
    def state(self):
        self._last = None  # a chunk has come to its end: its dense rows are not needed any more
        settings, packed = self.settings, self.packed
        state = {
            "format": FILE_FORMAT,
            "preset": settings.preset,
            "layer": settings.layer,
            "dense_reason": settings.dense_reason,
            "key_scales": settings.key_scales,
            "value_scales": settings.value_scales,
            "packed": None,
        }
        if packed is not None:
            state["packed"] = self._packed_state(packed)
        return state

    def _packed_state(self, packed):
        codec = packed.codec
        used = max(1, -(-max(packed.lengths) // ops.BLOCK_CELLS))
        return {
            "library_format": ops.FORMAT_VERSION,
            "keys_fingerprint": codec.fingerprint("keys"),
            "values_fingerprint": codec.fingerprint("values"),
            "n_head_kv": codec.n_head_kv,
            "head_dim_k": codec.head_dim_k,
            "head_dim_v": codec.head_dim_v,
            "dtype": _name(self.dtype),
            "lengths": mx.array(packed.lengths, mx.int64),
            "first_exact": mx.array(packed.first_exact, mx.int64),
            "keys": mx.contiguous(packed.keys[:, :used]),
            "values": mx.contiguous(packed.values[:, :used]),
            "exact_keys": packed.exact_keys,
            "exact_values": packed.exact_values,
        }

    @state.setter
    def state(self, state):
        if not isinstance(state, dict) or "format" not in state:
            raise PromptCacheMismatch("format", None, FILE_FORMAT)
        _check_field("format", state["format"], FILE_FORMAT)
        self.settings = Settings(
            state["preset"], state["layer"], state["key_scales"], state["value_scales"], state["dense_reason"]
        )
        self.packed, self.dtype, self._last = None, None, None
        if state["packed"] is not None:
            self._restore(state["packed"])
        install()

    def _restore(self, saved):
        _check_field("library_format", saved["library_format"], ops.FORMAT_VERSION)
        codec = self.settings.codec(saved["n_head_kv"], saved["head_dim_k"], saved["head_dim_v"])
        for side in ("keys", "values"):
            _check_field(f"{side}_fingerprint", saved[f"{side}_fingerprint"], codec.fingerprint(side))
        packed = PackedStreams(codec, saved["lengths"].size)
        for name, array in (("keys", packed.keys), ("values", packed.values)):
            _check_field(f"{name}' bytes a record", saved[name].shape[-1], array.shape[-1])
        arrays = [saved[name] for name in ("keys", "values", "exact_keys", "exact_values")]
        self.packed = packed._with(arrays, saved["lengths"].tolist(), saved["first_exact"].tolist())
        self.dtype = _DTYPES[saved["dtype"]]

    def __deepcopy__(self, memo):
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.packed = None if self.packed is None else self.packed.copy()
        made._last = None
        return made


class TurboQuantKVCache(_PackedCache):
    """The packed cache of one layer, in the place of mlx-lm's KVCache."""

    def __init__(self, preset="fast", layer=0, *, settings=None):
        install()
        self.settings = settings or Settings(preset, layer)
        self.packed = None

    @property
    def offset(self):
        return 0 if self.packed is None else self.packed.lengths[0]

    def update_and_fetch(self, keys, values):
        return self._store(keys, values, [keys.shape[2]] * keys.shape[0])

    def make_mask(self, N, return_array=False, window_size=None):
        mask = mlx_lm_cache.create_attention_mask(N, self.offset, return_array, window_size)
        return remember_mask(mask, window_size) if isinstance(mask, mx.array) else mask

    def size(self):
        return self.offset

    def trim(self, n):
        n = min(self.offset, n)
        if n > 0:
            self.packed.trim([length - n for length in self.packed.lengths])
        return n

    @classmethod
    def merge(_, caches):
        return BatchTurboQuantKVCache.merge(caches)


class BatchTurboQuantKVCache(_PackedCache):
    """The packed caches of one layer of several sequences, each with cells of its own from cell 0 on: what mlx-lm pads
    is never stored, and blocks never move."""

    def __init__(self, left_padding, settings=None):
        install()
        self.settings = settings or Settings()
        self.packed = None
        self._n_stream = len(left_padding)
        # Cells at the begin of each stream that hold padding, from a caller who pads at the left: hidden by the mask.
        self.left_padding = list(left_padding)
        self._remaining = None  # tokens of each stream that are still to come in a prompt with right padding

    @property
    def _lengths(self):
        return [0] * self._n_stream if self.packed is None else self.packed.lengths

    @property
    def offset(self):
        """The next token's position in each sequence, for rotary embeddings."""
        return mx.array([n - p for n, p in zip(self._lengths, self.left_padding)], mx.int32)

    def _counts(self, n):
        if self._remaining is None:
            return [n] * self._n_stream
        return [min(n, rest) for rest in self._remaining]

    def update_and_fetch(self, keys, values):
        counts = self._counts(keys.shape[2])
        rows = self._store(keys, values, counts)
        if self._remaining is not None:
            self._remaining = [rest - n for rest, n in zip(self._remaining, counts)]
        return rows

    def make_mask(self, N, return_array=False, window_size=None):
        lengths = mx.array(self._lengths)[:, None, None, None]
        counts = self._counts(N)
        n_cells = max(n + c for n, c in zip(self._lengths, counts))
        rows = lengths + mx.arange(N)[:, None]
        cells = mx.arange(n_cells)
        mask = cells <= rows
        if window_size is not None:
            mask = mask & (rows < cells + window_size)
        if not any(self.left_padding):
            return remember_mask(mask, window_size)
        return mask & (cells >= mx.array(self.left_padding)[:, None, None, None])

    def prepare(self, *, left_padding=None, lengths=None, right_padding=None):
        if left_padding is not None:
            if self.packed is not None:
                raise ValueError("left padding can only be added to an empty cache")
            self.left_padding = [a + b for a, b in zip(self.left_padding, left_padding)]
        if right_padding is not None and max(right_padding) > 0:
            self._remaining = list(lengths)

    def finalize(self):
        self._remaining = None

    def size(self):
        return max(self._lengths, default=0)

    def trim(self, n):
        n = min(self.size(), n)
        if n > 0:
            self.packed.trim([max(length - n, 0) for length in self.packed.lengths])
        return n

    # ---- sequences

    @classmethod
    def merge(cls, caches):
        for cache in caches[1:]:
            if cache.settings.identity != caches[0].settings.identity:
                raise ValueError(
                    f"caches of presets {caches[0].settings.preset} and {cache.settings.preset} cannot be in one batch"
                )
        made = cls([0] * len(caches), caches[0].settings)
        filled = next((c for c in caches if c.packed is not None), None)
        if filled is not None:
            parts = [c.packed or PackedStreams(filled.packed.codec, 1) for c in caches]
            made.packed = PackedStreams.concatenate(parts)
            made.dtype = filled.dtype
        return made

    def filter(self, batch_indices):
        indices = batch_indices.tolist() if isinstance(batch_indices, mx.array) else list(batch_indices)
        self._last = None
        if self.packed is not None:
            self.packed = self.packed.take(indices)
        self.left_padding = [self.left_padding[i] for i in indices]
        self._remaining = None if self._remaining is None else [self._remaining[i] for i in indices]
        self._n_stream = len(indices)

    def extend(self, other):
        if self.settings.identity != other.settings.identity:
            raise ValueError(
                f"caches of presets {self.settings.preset} and {other.settings.preset} cannot be in one batch"
            )
        self._last = None
        filled = self if self.packed is not None else other
        if filled.packed is not None:
            codec = filled.packed.codec
            parts = [c.packed or PackedStreams(codec, c._n_stream) for c in (self, other)]
            self.packed = PackedStreams.concatenate(parts)
            self.dtype = filled.dtype
        self.left_padding = self.left_padding + other.left_padding
        self._n_stream += other._n_stream

    def extract(self, idx):
        cache = TurboQuantKVCache(settings=self.settings)
        if self.packed is None:
            return cache
        one = self.packed.take([idx])
        cache.dtype = self.dtype
        padding = self.left_padding[idx]
        if padding == 0:
            cache.packed = one
        else:  # cells move, so the rows behind the padding are coded anew
            rows = (one.dense(side, one.lengths[0], self.dtype)[:, :, padding:] for side in ("keys", "values"))
            cache.update_and_fetch(*rows)
            cache._last = None
        return cache

    @property
    def state(self):
        return {
            **super().state,
            "left_padding": mx.array(self.left_padding),
            "n_stream": self._n_stream,
        }

    @state.setter
    def state(self, state):
        _PackedCache.state.fset(self, state)
        self.left_padding = state["left_padding"].tolist()
        self._n_stream = state["n_stream"]
        self._remaining = None


def register():
    """mlx-lm's load_prompt_cache() looks classes up by name among its own."""
    for cls in (TurboQuantKVCache, BatchTurboQuantKVCache):
        setattr(mlx_lm_cache, cls.__name__, cls)


register()
