// Super-chunks: runs of whole chunks of cells whose merged result a split keeps for each row (a partial). Their borders
// depend on the cell alone, never on the number of cells or threads, so that a row's result does not either. The one
// that begins at cell c has kChunkCells * max(1, 2^floor(log2(c / 32768))) cells: up to cell 65536 it is one chunk,
// beyond that never more than a 64th of what lies before it. So 64 of them double a context, and a million cells
// have 384 partials a row.
#pragma once

#include "turboquant/format/portable.h"

namespace tq {

TQ_FORMAT_TABLE int kChunkCells = 512;
TQ_FORMAT_TABLE int64_t kSuperChunksOfOctave = 64;  // octave 0: the first 32768 cells; octave n > 0: twice as many as
                                                    // before it
TQ_FORMAT_TABLE int64_t kFirstOctaveCells = kSuperChunksOfOctave * kChunkCells;

// The number of doublings after the first 32768 cells that lie before the cell: 0 up to cell 65536.
TQ_FORMAT_FN int super_chunk_level(int64_t cell) {
    int level = 0;
    for (int64_t octaves = cell / kFirstOctaveCells; octaves >= 2; octaves /= 2) ++level;
    return level;
}

// The index of the super-chunk in which the cell lies.
TQ_FORMAT_FN int64_t super_chunk_of(int64_t cell) {
    const int level = super_chunk_level(cell);
    if (level == 0) return cell / kChunkCells;
    return kSuperChunksOfOctave * (1 + level) + (cell - (kFirstOctaveCells << level)) / (int64_t{kChunkCells} << level);
}

// The cell at which it begins.
TQ_FORMAT_FN int64_t super_chunk_begin(int64_t index) {
    if (index < 2 * kSuperChunksOfOctave) return index * kChunkCells;
    const int64_t level = index / kSuperChunksOfOctave - 1;
    return (kFirstOctaveCells << level) + index % kSuperChunksOfOctave * (int64_t{kChunkCells} << level);
}

// How many lie, in whole or in part, in cells [0, n_cells).
TQ_FORMAT_FN int64_t n_super_chunks(int64_t n_cells) {
    return n_cells > 0 ? super_chunk_of(n_cells - 1) + 1 : 0;
}

}  // namespace tq
