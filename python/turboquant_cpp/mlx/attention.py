"""Attention on packed rows.

A cache's update_and_fetch() returns PackedRows in the place of arrays. mlx-lm's models hand them on to
mx.fast.scaled_dot_product_attention, which every one of them looks up when it is called; install() puts a function in
its place that recognizes them and gives anything else to the original.
"""

import collections
import functools
import logging

import mlx.core as mx

from . import ops

log = logging.getLogger("turboquant_cpp.mlx")

_original = mx.fast.scaled_dot_product_attention
# Masks that a cache has made, each with its window: these need not be read, as they say what attention can do by itself.
_made_masks = collections.deque(maxlen=16)


def remember_mask(mask, window):
    _made_masks.append((mask, window))
    return mask


def _window_of(mask):
    """The window of a causal mask that a cache has made, 0 for none; None for any other mask."""
    for made, window in _made_masks:
        if made is mask:
            return window or 0
    return None


@functools.lru_cache(maxsize=256)
def say_once(text):
    log.warning(text)


class Unsupported(Exception):
    """Why attention has to work on dense rows."""


class View:
    """The cells that the queries of one update see."""

    def __init__(self, packed, streams, n_tokens, dtype, exact):
        self.codec = packed.codec
        self.keys, self.values = packed.keys, packed.values
        self.packed = packed.copy()
        self.streams = streams  # (cells, tokens, first exact cell before them)
        self.n_tokens = n_tokens
        self.dtype = dtype
        self.exact = exact

    @property
    def n_cells(self):
        return max(n for n, _, _ in self.streams)

    def rows(self):
        return PackedRows(self, "keys"), PackedRows(self, "values")

    def dense(self, side):
        return self.packed.dense(side, self.n_cells, self.dtype)

    def attend(self, q, scale, mask, sinks):
        try:
            return self._attend_packed(q, scale, mask, sinks)
        except Unsupported as why:
            say_once(f"attention on dense rows: {why}")
            return _original(q, self.dense("keys"), self.dense("values"), scale=scale, mask=mask, sinks=sinks)

    def _attend_packed(self, q, scale, mask, sinks):
        if q.shape[2] != self.n_tokens:
            raise Unsupported(f"{q.shape[2]} queries after an update of {self.n_tokens} tokens")
        causal, window, mask = self._mask(mask)
        if reason := self.codec.unsupported_reason(q.shape[1], mask is not None):
            raise Unsupported(reason)
        return ops.attend(
            self.codec,
            self.streams,
            q,
            self.keys,
            self.values,
            scale=scale,
            causal=causal,
            window=window,
            mask=mask,
            sinks=None if sinks is None else sinks.reshape(-1).astype(mx.float32),
            exact=self.exact,
        )

    def _mask(self, mask):
        """Whether attention is causal, its window, and the mask that is to be read beside."""
        if mask is None:
            return self.n_tokens == 1, 0, None
        if isinstance(mask, str):
            if mask != "causal":
                raise Unsupported(f"mask {mask!r}")
            return True, 0, None
        window = _window_of(mask)
        if window is not None:
            return True, window, None
        return False, 0, self._readable(mask)

    def _readable(self, mask):
        """(1 or streams, tokens, cells) of halves, added to the logits."""
        shape = (1,) * (4 - mask.ndim) + tuple(mask.shape)
        if mask.ndim > 4 or shape[1] != 1:
            raise Unsupported(f"a mask of shape {tuple(mask.shape)}, which differs from head to head")
        if shape[0] not in (1, len(self.streams)) or shape[2] not in (1, self.n_tokens) or shape[3] not in (1, self.n_cells):
            raise ValueError(
                f"a mask of shape {tuple(mask.shape)} for {len(self.streams)} streams, {self.n_tokens} tokens and "
                f"{self.n_cells} cells"
            )
        mask = mx.broadcast_to(mask.reshape(shape)[:, 0], (shape[0], self.n_tokens, self.n_cells))
        if mask.dtype == mx.bool_:
            return mx.where(mask, mx.array(0, mx.float16), mx.array(-float("inf"), mx.float16))
        return mask.astype(mx.float16)


class PackedRows:
    """Packed keys or values where a model expects an array (streams, KV heads, cells, head_dim). Whatever else a model
    does with it than attend to it is done on a dense array, and said once."""

    def __init__(self, view, side):
        self.view = view
        self.side = side
        head_dim = view.codec.head_dim_k if side == "keys" else view.codec.head_dim_v
        self.shape = (len(view.streams), view.codec.n_head_kv, view.n_cells, head_dim)
        self.dtype = view.dtype
        self.ndim = 4

    def astype(self, dtype):
        made = PackedRows(self.view, self.side)
        made.dtype = dtype
        return made

    def dense(self, why):
        say_once(f"dense {self.side}: the model asks for {why}")
        return self.view.dense(self.side).astype(self.dtype)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dense(name), name)

    def __getitem__(self, index):
        return self.dense("a part of them")[index]

    def __matmul__(self, other):
        return self.dense("a matrix product") @ other

    def __rmatmul__(self, other):
        return other @ self.dense("a matrix product")


@functools.wraps(_original)
def scaled_dot_product_attention(q, k, v, *, scale, mask=None, sinks=None, **options):
    if isinstance(k, PackedRows) and isinstance(v, PackedRows) and k.view is v.view:
        return k.view.attend(q, scale, mask, sinks)
    k, v = (x.dense("attention beside other rows") if isinstance(x, PackedRows) else x for x in (k, v))
    return _original(q, k, v, scale=scale, mask=mask, sinks=sinks, **options)


def install():
    if mx.fast.scaled_dot_product_attention is not scaled_dot_product_attention:
        mx.fast.scaled_dot_product_attention = scaled_dot_product_attention
