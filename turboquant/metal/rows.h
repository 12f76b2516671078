// Which rows, cells and records a threadgroup works on.
#pragma once

#include "turboquant/attention/super_chunk.h"
#include "turboquant/attention/visible_cells.h"
#include "turboquant/metal/numerics.h"
#include "turboquant/metal/params.h"

namespace tq {

struct Lengths {
    int64_t n_kv, n_tokens;
};

inline Lengths lengths_of(device const int* lengths, int stream) {
    return {lengths[2 * stream], lengths[2 * stream + 1]};
}

inline CellRange cells_of(constant AttentionParams& p, Lengths stream, int64_t token) {
    return visible_cells(p.causal != 0, p.window, stream.n_kv, stream.n_tokens, token);
}

// The first chunk that a stream's tokens see: partials are counted from there.
inline int64_t first_chunk_of(constant AttentionParams& p, Lengths stream) {
    return cells_of(p, stream, 0).first / kChunkCells;
}

inline int64_t row_index(constant AttentionParams& p, int stream, int64_t token, int head) {
    return (int64_t(stream) * p.n_tokens + token) * p.n_head + head;
}

// The records of one stream.
struct Records {
    device const uchar* base;
    device const int* table;
    int64_t first;
    int64_t bytes;
    bool has_table;

    device const uchar* at(int64_t block) const {
        return base + (has_table ? int64_t(table[first + block]) : first + block) * bytes;
    }
};

}  // namespace tq
