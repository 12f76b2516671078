// Sizes of the attend kernel, which host and shader both need.
#pragma once

#include "turboquant/attention/super_chunk.h"
#include "turboquant/format/coding.h"

namespace tq {

TQ_FORMAT_TABLE int kSpan = 4;  // blocks that go through the softmax together (kSpanBlocks of attention/plan.h)
TQ_FORMAT_TABLE int kChunkOfBlocks = kChunkCells / kBlockCells;
TQ_FORMAT_TABLE int kMaxAttendRows = 8;  // query rows of a threadgroup
TQ_FORMAT_TABLE int kWideWeights = 6;    // value bits from which weights have two digits (kWideWeightBits)
TQ_FORMAT_TABLE int kThreadgroupBytes = 32768;

TQ_FORMAT_FN int attend_digits(int value_bits) {
    return value_bits >= kWideWeights ? 2 : 1;
}
// SIMD groups of a threadgroup. In the value phase a half of one takes a step of 16 dims.
TQ_FORMAT_FN int attend_simd_groups(int head_dim_v) {
    return head_dim_v <= 128 ? 2 : 4;
}
// Groups of values that a head has a part of, at most.
TQ_FORMAT_FN int attend_value_segments(int head_dim_v) {
    return head_dim_v % 64 == 0 ? head_dim_v / 64 : (head_dim_v + 126) / 64;
}
// Bytes of threadgroup memory.
TQ_FORMAT_FN int attend_bytes(int head_dim_k, int head_dim_v, int value_bits, int rows, bool centered) {
    const int segments = attend_value_segments(head_dim_v);
    return 2 * rows * head_dim_k + 4 * kSpan * rows + 4 * kSpan * rows * 16 +
           2 * kSpan * segments * attend_digits(value_bits) * rows * kBlockCells + 4 * kSpan * segments * rows +
           8 * kSpan + (centered ? 4 * kChunkOfBlocks * rows : 4);
}

// The same of attend_many, whose four SIMD groups share 16 or 32 rows; decoded codes go through threadgroup memory.
TQ_FORMAT_TABLE int kManyRows = 32;
TQ_FORMAT_TABLE int kManySimdGroups = 4;
TQ_FORMAT_FN int attend_many_bytes(int head_dim_k, int head_dim_v, int value_bits, int rows, bool centered) {
    return 2 * rows * head_dim_k + 2 * kBlockCells * 64 + 2 * attend_digits(value_bits) * rows * kBlockCells +
           8 * rows + 4 * rows * 16 + 8 * kSpan * attend_value_segments(head_dim_v) * rows +
           (centered ? 4 * kChunkOfBlocks * rows : 4);
}

}  // namespace tq
