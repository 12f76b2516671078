"""Packed keys and values of one layer: the records of a batch of streams (sequences), and their exact rows."""

import mlx.core as mx

from . import ops
from .attention import View


def blocks_of(cells):
    return -(-cells // ops.BLOCK_CELLS)


def room_for(cells):
    """Records that a stream with so many cells gets: it grows by a sixteenth, at least by 256 cells, so that copying
    while it grows costs a constant share of what is written."""
    blocks = blocks_of(cells)
    step = max(4, blocks // 64 * 4)
    return -(-blocks // step) * step


class _Mark:
    """How many cells of each stream have been written in one piece of memory, by whichever cache did so first.

    Caches that are copies of each other share the memory of their records. Who appends where nobody has written yet may
    do it in place: the others read only cells before. `None`: not known, as of a restored state.
    """

    def __init__(self, written=None):
        self.written = written


class PackedStreams:
    def __init__(self, codec, n_stream):
        self.codec = codec
        self.lengths = [0] * n_stream
        self.first_exact = [0] * n_stream  # of the cells behind the sinks, those from here on have exact rows
        self.keys, self.values = (
            mx.zeros((n_stream, 0, codec.block_bytes(side)), mx.uint8) for side in ("keys", "values")
        )
        self.exact_keys = self.exact_values = None
        if codec.n_slots:
            self.exact_keys, self.exact_values = (
                mx.zeros((n_stream, codec.n_slots, codec.n_head_kv * head_dim), mx.float16)
                for head_dim in (codec.head_dim_k, codec.head_dim_v)
            )
        self._mark = _Mark([0] * n_stream)

    @property
    def n_stream(self):
        return len(self.lengths)

    @property
    def arrays(self):
        """Everything that takes memory."""
        return [a for a in (self.keys, self.values, self.exact_keys, self.exact_values) if a is not None]

    @property
    def nbytes(self):
        return sum(a.nbytes for a in self.arrays)

    def copy(self):
        """Another one with the same content. No bytes are copied until one of the two writes where the other has."""
        made = object.__new__(PackedStreams)
        made.__dict__.update(self.__dict__, lengths=list(self.lengths), first_exact=list(self.first_exact))
        return made

    def append(self, keys, values, counts):
        """Stores the first counts[i] rows of (streams, KV heads, n, head_dim) behind stream i, and returns what its
        queries see."""
        before = self.lengths
        after = [length + n for length, n in zip(before, counts)]
        n_blocks = max(self.keys.shape[1], room_for(max(after)))
        in_place = self._mark.written == before and n_blocks == self.keys.shape[1]
        old_exact = (self.exact_keys, self.exact_values)
        old_first_exact = list(self.first_exact)
        streams = list(zip(before, counts))
        self.keys, self.exact_keys = ops.append(
            self.codec, "keys", streams, n_blocks, in_place, self.keys, keys, self.exact_keys
        )
        self.values, self.exact_values = ops.append(
            self.codec, "values", streams, n_blocks, in_place, self.values, values, self.exact_values
        )
        if in_place:
            self._mark.written = after
        else:
            self._mark = _Mark(after)
        self.lengths = after
        self.first_exact = [max(f, n - self.codec.n_kept) for f, n in zip(old_first_exact, after)]
        exact = None
        if self.codec.n_slots:
            exact = (old_exact[0], keys, old_exact[1], values)
        return View(self, list(zip(after, counts, old_first_exact)), keys.shape[2], keys.dtype, exact)

    def trim(self, lengths):
        """Stream i has lengths[i] cells from now on, not more than before."""
        self.lengths = list(lengths)
        self.first_exact = [min(f, n) for f, n in zip(self.first_exact, lengths)]

    def dense(self, side, n, dtype):
        records, exact = (self.keys, self.exact_keys) if side == "keys" else (self.values, self.exact_values)
        return ops.decode(
            self.codec, side, n, records, dtype, lengths=self.lengths, first_exact=self.first_exact, exact=exact
        )

    # ---- streams of a batch

    def _with(self, arrays, lengths, first_exact):
        made = object.__new__(PackedStreams)
        made.codec = self.codec
        made.keys, made.values, made.exact_keys, made.exact_values = arrays
        made.lengths, made.first_exact = list(lengths), list(first_exact)
        made._mark = _Mark()
        return made

    def take(self, indices):
        """These streams, in records of their own and no more of them than needed."""
        indices = list(indices)
        lengths = [self.lengths[i] for i in indices]
        blocks = blocks_of(max(lengths, default=0))
        picked = mx.array(indices, mx.int32)

        def of(array, n=None):
            if array is None:
                return None
            return mx.take(array if n is None else array[:, :n], picked, axis=0)

        arrays = (of(self.keys, blocks), of(self.values, blocks), of(self.exact_keys), of(self.exact_values))
        return self._with(arrays, lengths, [self.first_exact[i] for i in indices])

    @staticmethod
    def concatenate(parts):
        """The streams of all parts, which have the same codec."""
        blocks = max(p.keys.shape[1] for p in parts)

        def padded(array):
            return mx.pad(array, [(0, 0), (0, blocks - array.shape[1]), (0, 0)])

        def joined(name, pad):
            arrays = [getattr(p, name) for p in parts]
            if arrays[0] is None:
                return None
            return mx.concatenate([padded(a) if pad else a for a in arrays], axis=0)

        arrays = (joined("keys", True), joined("values", True), joined("exact_keys", False), joined("exact_values", False))
        lengths = [n for p in parts for n in p.lengths]
        return parts[0]._with(arrays, lengths, [n for p in parts for n in p.first_exact])
