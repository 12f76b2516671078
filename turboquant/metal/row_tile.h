// The query rows of a threadgroup of the attend kernels, what each sees of a cell, and the blocks that they share.
#pragma once

#include "turboquant/metal/attend_shape.h"
#include "turboquant/metal/elements.h"
#include "turboquant/metal/rows.h"

namespace tq {

// Where the threadgroup's rows are: row i is of token (first + i) / group_size, the head of the group running fastest.
struct RowTile {
    int64_t first;
    int n;
    int group_size, head_kv, stream;
    Lengths lengths;

    int64_t token(int i) const { return (first + i) / group_size; }
    int head(int i) const { return head_kv * group_size + int((first + i) % group_size); }
};

// group: of the grid (row tiles of all KV heads, chunks, streams). n is 0 or less where the stream has no such tokens.
inline RowTile row_tile(constant AttentionParams& p, device const int* lengths, uint3 group, int rows) {
    RowTile tile;
    tile.stream = int(group.z);
    tile.lengths = lengths_of(lengths, tile.stream);
    tile.group_size = p.n_head / p.n_head_kv;
    tile.head_kv = int(group.x / uint(p.n_row_tiles));
    tile.first = int64_t(group.x % uint(p.n_row_tiles)) * rows;
    const int64_t rest = tile.lengths.n_tokens * tile.group_size - tile.first;
    tile.n = rest < rows ? int(rest) : rows;
    return tile;
}

// Blocks [first, end) of a chunk, counted from the first that the stream's tokens see, that some row of the tile sees.
struct BlockRange {
    int64_t chunk, first, end;
};
inline BlockRange blocks_of_tile(constant AttentionParams& p, thread const RowTile& tile, uint chunk) {
    const int64_t first_cell = cells_of(p, tile.lengths, tile.token(0)).first;
    const int64_t end_cell = cells_of(p, tile.lengths, tile.token(tile.n - 1)).end;
    BlockRange blocks;
    blocks.chunk = first_chunk_of(p, tile.lengths) + chunk;
    blocks.first = metal::max(blocks.chunk * kChunkOfBlocks, first_cell / kBlockCells);
    blocks.end = metal::min((blocks.chunk + 1) * kChunkOfBlocks, (end_cell + kBlockCells - 1) / kBlockCells);
    return blocks;
}

// What is added to the base-2 logit of a cell: -infinity if the row does not see it.
inline float mask_of_cell(constant AttentionParams& p, device const uchar* mask, device const uint* hidden,
                          thread const RowTile& tile, int row, int64_t cell) {
    const int64_t token = tile.token(row);
    const CellRange seen = cells_of(p, tile.lengths, token);
    if (cell < seen.first || cell >= seen.end) return -INFINITY;
    if (p.n_exact > 0) {
        const int64_t word = (int64_t(tile.stream) * p.n_tokens + token) * p.hidden_words + cell / 32;
        if ((hidden[word] >> uint(cell % 32) & 1u) != 0) return -INFINITY;
    }
    if (p.mask_type == kMaskNone) return 0;
    const int64_t index = tile.stream * p.mask.stream + token * p.mask.token + tile.head(row) * p.mask.head + cell;
    return load_mask(mask, index, p.mask_type) * kLog2e;
}

// The fixed dither of a cell's weight: cells of a block in bit-reversed order.
inline float dither_of(int cell) {
    return (float(metal::reverse_bits(uint(cell)) >> 26) + 0.5f) / float(kBlockCells) - 0.5f;
}

}  // namespace tq
