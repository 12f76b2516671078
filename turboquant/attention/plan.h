// Fused attention on packed keys and values, in two steps: a plan (sizes everything) and its run (allocates nothing).
//
// The work is a list of independent items in phases; the caller's threads run the items of a phase in any order, with a
// barrier between phases:
//   kPrepare  rotate and quantize the queries
//   kAttend   one KV head's rows against a fixed chunk of cells (split: a partial result) or against all of them
//   kMerge    only if split: merge a row's partials in cell order, finish it
// Batch invariance: chunks start at multiples of kChunkCells from cell 0 whatever the shape, dot products are exact
// integers, and partials are merged in cell order with the same operations in both forms. So an output row depends only on its
// query, its mask row and the cells: not on the batch, the threads or the split.
#pragma once

#include <array>
#include <string>

#include "turboquant/attention/params.h"

namespace tq {

inline constexpr int kChunkCells = 512;
inline constexpr int kMaxTileRows = 32;   // query rows that share one decoded block

enum class AttentionPhase { kPrepare, kAttend, kMerge };

// Sizes shared by plan and kernels; a plain struct so that a device kernel can take it by value.
struct AttentionGeometry {
    AttentionShape shape;
    int key_bits, value_bits;
    int group_size;            // query heads a KV head
    int64_t rows_per_head_kv;  // n_tokens * group_size: (token, head in group), the head running fastest
    int64_t n_row_tiles;       // tiles of kMaxTileRows rows
    int64_t n_chunks;
    bool split;                // kAttend items are per chunk

    size_t query_bytes;        // one prepared row, see PreparedQuery in attention-inl.h
    size_t partial_floats;     // one partial: running maximum, sum, then head_dim_v outputs (16-float aligned)
    size_t scratch_bytes;      // of one thread
    size_t scratch_offset, partial_offset;  // in the workspace; prepared queries come first
    size_t workspace_bytes;
};

class AttentionPlan {
public:
    // Errors: kUnsupported with the reason (the caller takes another path), kInvalidArgument.
    static Result<AttentionPlan> create(const AttentionShape& shape, const RowCodec& keys, const RowCodec& values, Isa isa);

    // Bytes of 64-byte aligned memory that run() needs.
    size_t workspace_bytes() const { return geometry_.workspace_bytes; }
    int64_t n_items(AttentionPhase phase) const;
    // item in [0, n_items(phase)), thread in [0, shape.n_threads).
    void run(AttentionPhase phase, int64_t item, int thread, const AttentionInputs& inputs, void* workspace) const;
    // All phases on the calling thread.
    void run_all(const AttentionInputs& inputs, void* workspace) const;

    const AttentionGeometry& geometry() const { return geometry_; }

private:
    AttentionPlan() = default;
    AttentionGeometry geometry_{};
    const struct AttentionKernels* kernels_ = nullptr;
};

// Why the fused kernels can't take this shape, or "" if they can.
std::string unsupported_reason(const AttentionShape& shape);

}  // namespace tq
