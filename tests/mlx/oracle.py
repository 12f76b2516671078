"""libturboquant without MLX (oracle.cpp), on NumPy arrays."""

import ctypes
import os

import numpy as np


def _library():
    lib = ctypes.CDLL(os.environ["TQ_MLX_ORACLE"])
    lib.oracle_create.restype = ctypes.c_void_p
    lib.oracle_error.restype = ctypes.c_char_p
    return lib


_lib = _library()
_i64, _float, _void = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


def _pointer(array):
    return None if array is None else array.ctypes.data_as(_void)


def _floats(array):
    return np.ascontiguousarray(array, np.float32)


class Oracle:
    def __init__(self, preset, n_head_kv, head_dim_k, head_dim_v, n_cells, n_stream=1):
        self.shape = (n_head_kv, head_dim_k, head_dim_v)
        self.n_stream = n_stream
        self._handle = _lib.oracle_create(
            preset.encode(), n_head_kv, head_dim_k, head_dim_v, _i64(n_cells), _i64(n_stream)
        )
        if not self._handle:
            raise ValueError(_lib.oracle_error().decode())
        self._handle = _void(self._handle)

    def __del__(self):
        if getattr(self, "_handle", None):
            _lib.oracle_free(self._handle)

    def _check(self, failed):
        if failed:
            raise ValueError(_lib.oracle_error().decode())

    def append(self, keys, values, counts=None):
        """keys, values: (streams, KV heads, n, head_dim)."""
        for stream in range(self.n_stream):
            n = keys.shape[2] if counts is None else counts[stream]
            rows = [_floats(x[stream, :, :n].transpose(1, 0, 2)) for x in (keys, values)]
            self._check(_lib.oracle_append(self._handle, _i64(stream), _i64(n), *map(_pointer, rows)))

    def truncate(self, length, stream=0):
        self._check(_lib.oracle_truncate(self._handle, _i64(stream), _i64(length)))

    def read(self, n, stream=0):
        """Dense keys and values (KV heads, n, head_dim)."""
        heads, dk, dv = self.shape
        rows = [np.empty((n, heads, dim), np.float32) for dim in (dk, dv)]
        self._check(_lib.oracle_read(self._handle, _i64(stream), _i64(n), *map(_pointer, rows)))
        return [x.transpose(1, 0, 2) for x in rows]

    def attend(self, q, scale, tokens=None, causal=True, window=0, mask=None, sinks=None):
        q = _floats(q)
        n_stream, n_head, n, _ = q.shape
        tokens = np.array([n] * n_stream if tokens is None else tokens, np.int64)
        mask = None if mask is None else np.ascontiguousarray(mask, np.float16)
        sinks = None if sinks is None else _floats(sinks)
        out = np.zeros((n_stream, n_head, n, self.shape[2]), np.float32)
        self._check(
            _lib.oracle_attend(
                self._handle, n_head, _i64(n), _pointer(tokens), _float(scale), int(causal), _i64(window),
                _pointer(q), _pointer(mask), _pointer(sinks), _pointer(out),
            )
        )
        return out
