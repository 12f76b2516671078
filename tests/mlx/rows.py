"""Rows like a model's, and what attention on them should be."""

import mlx.core as mx
import numpy as np


def rows(seed, *shape, dtype=mx.float32):
    """Gaussian rows with a common part, as keys have."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((*shape[:-2], 1, shape[-1]))
    return mx.array((rng.standard_normal(shape) + 0.5 * common).astype(np.float32)).astype(dtype)


def as_floats(array):
    return np.array(array.astype(mx.float32))


def exact_attention(q, k, v, scale, mask=None, sinks=None):
    """In double precision. q: (B, heads, n, d), k and v: (B, KV heads, cells, d), mask: boolean or added, broadcast to
    (B, 1, n, cells); rows that see nothing are zeros."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    logits = scale * q @ k.transpose(0, 1, 3, 2)
    if mask is not None:
        mask = np.asarray(mask)
        logits = np.where(mask, logits, -np.inf) if mask.dtype == bool else logits + mask
    top = logits.max(axis=-1, keepdims=True)
    if sinks is not None:
        top = np.maximum(top, np.asarray(sinks, np.float64)[None, :, None, None])
    top = np.where(np.isfinite(top), top, 0)
    weights = np.exp(logits - top)
    total = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(np.asarray(sinks, np.float64)[None, :, None, None] - top)
    return np.where(total > 0, weights / np.where(total > 0, total, 1), 0) @ v


def causal_mask(n, cells, window=0):
    row = np.arange(cells - n, cells)[:, None]
    cell = np.arange(cells)[None]
    mask = cell <= row
    return mask & (cell > row - window) if window else mask


def error_bound(q, k, v, scale, value_bits):
    """The bound of turboquant/attention/plan.h, with the norm of a rotated query's largest component at most its own."""
    weight = 0.1 if value_bits < 6 else 0.1 / 128
    largest = np.abs(scale) * np.linalg.norm(q, axis=-1).max() * np.linalg.norm(k, axis=-1).max()
    return (weight + 0.009 * largest) * np.linalg.norm(v, axis=-1).max()
