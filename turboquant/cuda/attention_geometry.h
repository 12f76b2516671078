// What an attention plan for a device works out. It needs no device.
#pragma once

#include "turboquant/attention/params.h"
#include "turboquant/base/status.h"

namespace tq::cuda {

inline constexpr int kTileRows = 4;  // query rows of a KV head that share one reading of the cache

// What a plan works out.
struct AttentionGeometry {
    AttentionShape shape;
    int key_bits, value_bits;
    int group_size;  // query heads a KV head
    int n_tiles;     // tiles of kTileRows rows of a KV head: n_tokens * group_size of them, the head running fastest
    int n_segments;  // at most so many have a row's cells
    size_t partial_floats;  // of a tile's partial result: kTileRows rows, then kTileRows maxima and as many sums
    size_t partial_offset;  // bytes from the workspace's begin; the tickets come first
    size_t workspace_bytes;

    int64_t n_row_tiles() const { return shape.n_stream * shape.n_head_kv * n_tiles; }
};

// What the geometry of a shape is. Error: kUnsupported, kInvalidArgument. It needs no device.
Result<AttentionGeometry> attention_geometry(const AttentionShape& shape, int key_bits, int value_bits);

// Segments that a thread block goes through one after another, where so many thread blocks run at the same time: more
// where there is much work, since each has its beginning and end. It changes no bits.
int run_segments(const AttentionGeometry& geometry, int resident_blocks);

}  // namespace tq::cuda
