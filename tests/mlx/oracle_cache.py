"""A cache for mlx-lm whose rows and attention are libturboquant's own, called without MLX."""

import types

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import create_attention_mask
from oracle import Oracle
from rows import as_floats

from turboquant_cpp.mlx.attention import PackedRows, install


class _View:
    def __init__(self, oracle, n_cells, dtype):
        self.oracle, self.n_cells, self.dtype = oracle, n_cells, dtype
        heads, dk, dv = oracle.shape
        self.codec = types.SimpleNamespace(n_head_kv=heads, head_dim_k=dk, head_dim_v=dv)
        self.streams = [(n_cells, 0, 0)]

    def attend(self, q, scale, mask, sinks):
        assert mask is None or mask == "causal"
        return mx.array(self.oracle.attend(as_floats(q), scale)).astype(q.dtype)


class OracleCache:
    def __init__(self, preset):
        install()
        self.preset = preset
        self.offset = 0
        self.oracle = None
        self.state = []

    def make_mask(self, N, return_array=False, window_size=None):
        return create_attention_mask(N, self.offset, return_array, window_size)

    def update_and_fetch(self, keys, values):
        if self.oracle is None:
            self.oracle = Oracle(self.preset, keys.shape[1], keys.shape[3], values.shape[3], 1024)
        self.oracle.append(np.array(as_floats(keys)), np.array(as_floats(values)))
        self.offset += keys.shape[2]
        view = _View(self.oracle, self.offset, keys.dtype)
        return PackedRows(view, "keys"), PackedRows(view, "values")
