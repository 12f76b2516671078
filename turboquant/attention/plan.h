// Fused attention on packed keys and values, in two steps: a plan (sizes everything) and its run (allocates nothing).
//
// The work is a list of independent items in phases; the caller's threads run the items of a phase in any order, with a
// barrier between phases:
//   kPrepare  rotate and quantize the queries
//   kAttend   a tile of one KV head's rows against all cells that they may see, or (split: partial results) against a
//             run of super-chunks of them
//   kMerge    only if split: merge a row's partials in cell order, finish it
// Batch invariance: chunks start at multiples of kChunkCells from cell 0 whatever the shape, super-chunks
// (attention/super_chunk.h) are whole chunks whatever the shape, dot products are exact integers, and both are merged
// in cell order with the same operations in both forms: chunks into their super-chunk, super-chunks into the row. So an
// output row depends only on its query, its mask row and the cells: not on the batch, the threads or the split.
//
// Accuracy, against attention_reference (exact attention on the same decoded cells), for every output row of one head:
//   |out - reference| <= (weight_error + kQueryError * Q) * max |v|,   Q = scale * max |(R q)_i| * max |k|
// with Euclidean norms of vectors, the maxima over the components of the rotated query and over the cells' decoded rows
// of that head; with channel scales, of D^-1 q, D k, D v and D out. It is no proof but four standard deviations of the
// worst arrangement of keys and values that was found for either kind of rounding:
//   weights  one cell with nearly all weight, 63 with half a step of 7 bits each, their values v or -v at random: the
//            dithered roundings add up to sqrt(63) / 2 / 127 / (1 + 63 / 254) = 0.025 (14 bits: / 128);
//   query    int8 rounding errors of standard deviation max |(R q)_i| / 127 / sqrt(12) move logits by 0.0023 Q; with
//   two
//            opposite keys of half the weight each, of opposite values, the output moves by as much.
// Ordinary rows are within a quarter of it; the worst of 90000 that were made to come near reached 0.55 of it (made as
// in tests/attention_accuracy_test.cpp, which tries fewer). Exact rows (cache/exact_rows.h) go through float arithmetic
// and add no more than its rounding.
#pragma once

#include <array>
#include <string>

#include "turboquant/attention/params.h"
#include "turboquant/attention/super_chunk.h"
#include "turboquant/base/inline.h"
#include "turboquant/cache/engine.h"

namespace tq {

inline constexpr int kSpanBlocks = 4;  // blocks of 64 cells that go through the softmax together; a part of a chunk
inline constexpr int kSpanCells = kSpanBlocks * kBlockCells;
inline constexpr int kItemsPerThread = 4;  // the least where tiles and chunks allow it: threads do not run evenly
inline constexpr int kMaxTileRows = 32;    // query rows that share one decoded block

inline constexpr int kWideWeightBits = 6;  // value widths from here on get two 7-bit digits of weight
inline constexpr double kQueryError = 0.009;
constexpr double weight_error(int value_bits) {
    return value_bits < kWideWeightBits ? 0.1 : 0.1 / 128;
}

enum class AttentionPhase { kPrepare, kAttend, kMerge };

// Sizes shared by plan and kernels; a plain struct so that a device kernel can take it by value.
struct AttentionGeometry {
    AttentionShape shape;
    int key_bits, value_bits;
    bool keys_centered;
    int group_size;            // query heads a KV head
    int64_t rows_per_head_kv;  // n_tokens * group_size: (token, head in group), the head running fastest
    int heads_per_tile;        // KV heads whose rows share a tile; 1 where one head's fill more than half of it
    int64_t n_head_tiles;
    int64_t n_row_tiles;     // tiles of kMaxTileRows rows
    int64_t n_super_chunks;  // partials of a row
    int64_t n_parts;         // kAttend items of a tile, each with super-chunks of an even share of its cells
    TQ_INLINE bool split() const { return n_parts > 1; }

    size_t query_bytes;     // one prepared row, see PreparedQuery in attention-inl.h
    size_t partial_floats;  // one partial: running maximum, sum, then head_dim_v outputs (16-float aligned)
    size_t scratch_bytes;   // bytes of one thread's scratch
    size_t scratch_offset, partial_offset;  // bytes from the workspace's begin; prepared queries come first
    size_t exact_offset, mask_offset;       // bytes to each (stream, token)'s ExactList and mask that hides it
    size_t exact_bytes;                     // bytes of one list
    size_t workspace_bytes;
};

class AttentionPlan {
  public:
    // Errors: kUnsupported with the reason (the caller takes another path), kInvalidArgument (sizes that are not
    // positive or too large, a window that is negative or without `causal`, codecs of another shape).
    static Result<AttentionPlan> create(const AttentionShape& shape, const BlockCodec& keys, const BlockCodec& values,
                                        const Engine& engine);

    // Says whether run() may be given these inputs; to be asked once for each of them. Error: kInvalidArgument naming
    // what does not fit the plan: a tensor coded otherwise than the one the plan was made for, streams or cells that it
    // does not have, blocks without a record in a block table among those that its tokens may see, lengths of streams
    // beyond the shape's, exact rows that are missing, not expected, or more than n_exact. run() checks nothing.
    Status bind(const AttentionInputs& inputs) const;

    // Bytes of 64-byte aligned memory that run() needs.
    size_t workspace_bytes() const { return geometry_.workspace_bytes; }
    int64_t n_items(AttentionPhase phase) const;
    // item in [0, n_items(phase)), thread in [0, shape.n_threads); inputs that bind() has accepted.
    void run(AttentionPhase phase, int64_t item, int thread, const AttentionInputs& inputs, void* workspace) const;
    // All phases on the calling thread.
    void run_all(const AttentionInputs& inputs, void* workspace) const;

    const AttentionGeometry& geometry() const { return geometry_; }

  private:
    AttentionPlan() = default;
    void prepare_exact(int64_t item, const AttentionInputs& inputs, char* workspace) const;
    AttentionInputs with_hidden_cells(const AttentionInputs& inputs, char* workspace) const;
    Status bind_exact(const AttentionInputs& inputs) const;
    // The codes that the kernels were chosen for.
    struct Format {
        RowFormat rows;
        int head_dim;
    };
    Status check_tensor(const char* name, const Format& format, const PackedTensor& tensor, int64_t first_stream,
                        const AttentionInputs& inputs) const;

    AttentionGeometry geometry_{};
    Format keys_{}, values_{};
    const AttentionKernels* kernels_ = nullptr;
};

// Why the fused kernels can't take this shape, or "" if they can.
std::string unsupported_reason(const AttentionShape& shape);

}  // namespace tq
