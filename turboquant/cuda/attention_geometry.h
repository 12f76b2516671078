// What an attention plan for a device works out. It needs no device.
#pragma once

#include "turboquant/attention/params.h"
#include "turboquant/base/status.h"
#include "turboquant/cuda/segments.h"

namespace tq::cuda {

struct AttentionOptions {
    // An output row's bits then depend on its query and the cells that it sees, not on the batch, the lengths of other
    // streams or the device. It costs up to a tenth of the time where there is much work, a fifth where few rows are
    // long (docs/cuda.md).
    bool batch_invariant = false;
};

// What a plan works out.
struct AttentionGeometry {
    AttentionShape shape;
    int key_bits, value_bits;
    int group_size;  // query heads a KV head
    int tile_rows;   // query rows of a KV head that share one reading of the cache: 4 or 8
    int n_tiles;     // of a KV head's rows, n_tokens * group_size of them, the head running fastest
    Segments segments;
    int n_segments;  // at most so many have a row's cells
    // A thread block goes through the segments that begin in a run of so many blocks of cells. Each has its beginning
    // and end, so there are just as many as run at the same time where a row's cells are enough for that.
    int run_blocks;
    size_t partial_floats;  // of a tile's partial result: its rows, then a maximum and a sum of each
    size_t partial_offset;  // bytes from the workspace's begin; the tickets come first
    size_t workspace_bytes;

    int64_t n_row_tiles() const { return shape.n_stream * shape.n_head_kv * n_tiles; }
};

// Errors: kUnsupported, kInvalidArgument.
Result<AttentionGeometry> attention_geometry(const AttentionShape& shape, int key_bits, int value_bits,
                                             const AttentionOptions& options, int n_multiprocessors);

}  // namespace tq::cuda
