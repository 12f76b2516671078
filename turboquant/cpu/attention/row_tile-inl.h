// What one item of the attend phase works on: a tile of query rows, the heads that they belong to, and the memory of
// the thread that does it.
#pragma once

#include "turboquant/attention/cell_range.h"
#include "turboquant/attention/kernels.h"
#include "turboquant/cpu/attention/centers-inl.h"
#include "turboquant/cpu/attention/softmax-inl.h"

namespace tq::attention_impl {

// Query rows that one item attends with: those of one KV head, or the same few rows of several, which then share the
// way through the cells, so that records are read from one end to the other.
struct Tile {
    int64_t stream;
    int head_kv, n_heads;  // KV heads [head_kv, head_kv + n_heads)
    int64_t first_row;     // index among the rows_per_head_kv rows
    int rows_per_head;     // 0 or less: the stream has no such tokens
    int n_rows;            // of all heads, one head's behind the other's
    StreamLengths lengths;
    CellRange cells;  // that some row of it may see
    int64_t first_super_chunk, end_super_chunk;

    TQ_INLINE uint32_t rows_of_head(int head) const {
        return (~0u >> (kMaxTileRows - rows_per_head)) << (head * rows_per_head);
    }
};

// Where a part begins: the first super-chunk that begins behind an even share of the cells.
static TQ_INLINE int64_t first_super_chunk_of_part(const CellRange& cells, int64_t part, int64_t n_parts) {
    const int64_t first = super_chunk_of(cells.first);
    if (part == 0) return first;
    return larger(first, n_super_chunks(cells.first + (cells.end - cells.first) * part / n_parts));
}

static TQ_INLINE Tile tile_of_item(const AttentionGeometry& g, const AttentionInputs& in, int64_t item) {
    Tile t;
    const int64_t part = item % g.n_parts;
    item /= g.n_parts;
    // Late rows see the most cells under a causal mask: start with them, so that the threads end together.
    t.first_row = (g.n_row_tiles - 1 - item % g.n_row_tiles) * kMaxTileRows;
    item /= g.n_row_tiles;
    t.head_kv = static_cast<int>(item % g.n_head_tiles) * g.heads_per_tile;
    t.n_heads = smaller(g.heads_per_tile, g.shape.n_head_kv - t.head_kv);
    t.stream = item / g.n_head_tiles;
    t.lengths = lengths_of_stream(g.shape, in, t.stream);
    t.rows_per_head = static_cast<int>(smaller<int64_t>(kMaxTileRows, t.lengths.n_tokens * g.group_size - t.first_row));
    t.n_rows = t.n_heads * t.rows_per_head;
    t.cells = {0, 0};
    if (t.n_rows > 0) {
        t.cells = cells_of_tokens(g.shape, t.lengths, t.first_row / g.group_size,
                                  (t.first_row + t.rows_per_head - 1) / g.group_size);
    }
    t.first_super_chunk = t.end_super_chunk = 0;
    if (t.cells.empty()) return t;
    t.first_super_chunk = first_super_chunk_of_part(t.cells, part, g.n_parts);
    t.end_super_chunk = first_super_chunk_of_part(t.cells, part + 1, g.n_parts);
    return t;
}

// (stream, token, head) rows are numbered in that order in the workspace.
static TQ_INLINE int64_t row_index(const AttentionGeometry& g, int64_t stream, int64_t token, int head) {
    return (stream * g.shape.n_tokens + token) * g.shape.n_head + head;
}

// One head's keys or values of one stream.
struct Head {
    HeadTiles tiles;
    ConstBlocks blocks;
    int64_t n_blocks;
    const uint8_t* decoded;             // centroids of the block that scratch holds
    uint32_t decoded_tiles[kMaxSteps];  // bytes from there to each step's tile
    // What is read next lies so many bytes further in the same record (the next head's), or, if 0, `back` bytes before
    // the same place in the record `blocks_ahead` blocks later.
    ptrdiff_t next, back;
    int64_t blocks_ahead;

    TQ_INLINE BlockRecord record(int64_t block) const {
        const uint8_t* bytes = blocks.at(block);
        if (next != 0) return {bytes, next};
        return {bytes, blocks.at(smaller(block + blocks_ahead, n_blocks - 1)) - back - bytes};
    }
};

// A KV head of a tile.
struct HeadOfTile {
    Head keys, values;
    Centers centers;
    int64_t loaded_centers;  // the run of centers whose products are in scratch; -1: none
};

// One thread's memory, cut from its part of the workspace. Arrays over rows have a vector's width of padding.
struct Scratch {
    int32_t* query_words;  // [head_dim_k / 4][kMaxTileRows]
    int32_t* query_bias;   // [segment][kMaxTileRows]
    float* logit_scale;    // [row]
    uint8_t* key_tiles;    // [step][unit][64], of one block
    uint8_t* value_tiles;
    float* logits;            // [row][kSpanCells]; probabilities after the softmax
    float* masks;             // [row][block of a span][64]
    uint8_t* weights;         // [row][block of a span][2 digits][64]
    float* units;             // [block of a span][row]
    float* centers;           // [row][kSpanCells]: q . centers of a run of blocks, if keys are centered
    RunningRows chunk;        // state over this chunk
    RunningRows super_chunk;  // state over the chunks of this super-chunk, where it has several
    RunningRows total;        // state over all super-chunks
    HeadOfTile* heads;        // [head of the tile]
    size_t bytes;

    TQ_INLINE Scratch(const AttentionGeometry& g, char* base) {
        const char* start = base;
        query_words = take<int32_t>(base, size_t{kMaxTileRows} * g.shape.head_dim_k / 4);
        query_bias = take<int32_t>(base, size_t{kMaxTileRows} * kMaxSegments);
        logit_scale = take<float>(base, kPaddedRows);
        key_tiles = take<uint8_t>(base, size_t{kBlockCells} * g.shape.head_dim_k);
        value_tiles = take<uint8_t>(base, size_t{kBlockCells} * g.shape.head_dim_v);
        logits = take<float>(base, size_t{kMaxTileRows} * kSpanCells);
        masks = take<float>(base, size_t{kMaxTileRows} * kSpanCells);
        weights = take<uint8_t>(base, size_t{kMaxTileRows} * kRowWeights);
        units = take<float>(base, size_t{kSpanBlocks} * kPaddedRows);
        centers = take<float>(base, g.keys_centered ? size_t{kMaxTileRows} * kSpanCells : 0);
        chunk = take_rows(base, g.shape.head_dim_v);
        super_chunk = take_rows(base, g.shape.head_dim_v);
        total = take_rows(base, g.shape.head_dim_v);
        heads = take<HeadOfTile>(base, static_cast<size_t>(g.heads_per_tile));
        bytes = static_cast<size_t>(base - start);
    }

    template <class T>
    static TQ_INLINE T* take(char*& base, size_t count) {
        T* taken = reinterpret_cast<T*>(base);
        base += (count * sizeof(T) + 63) / 64 * 64;
        return taken;
    }
    static TQ_INLINE RunningRows take_rows(char*& base, int head_dim) {
        return {take<float>(base, kPaddedRows), take<float>(base, kPaddedRows),
                take<float>(base, size_t{kMaxTileRows} * head_dim), static_cast<size_t>(head_dim)};
    }
};

// One row's share of a split: running maximum, sum and outputs, as they lie in the workspace.
struct Partial {
    float* max;
    float* sum;
    float* out;  // head_dim_v
};

static TQ_INLINE Partial partial_in(float* base) {
    return {base, base + 1, base + 16};
}

}  // namespace tq::attention_impl
