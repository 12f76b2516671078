// How values are coded: what every engine, kernel language and file agrees on. Plain constants and constexpr functions.
#pragma once

#include "turboquant/format/portable.h"

namespace tq {

enum class Side : uint8_t { kKey, kValue };

// Scalar: a code for each value (format/codebook.h). Trellis: a value's level depends on the codes before it in its
// group (format/trellis.h). Centered, keys only: a block's keys are coded as what they differ by from a center.
enum class Coding : uint8_t { kScalar, kTrellis, kCentered, kCenteredTrellis };

TQ_FORMAT_FN bool is_trellis(Coding coding) {
    return coding == Coding::kTrellis || coding == Coding::kCenteredTrellis;
}
TQ_FORMAT_FN bool is_centered(Coding coding) {
    return coding == Coding::kCentered || coding == Coding::kCenteredTrellis;
}
TQ_FORMAT_FN Coding coding_of(bool trellis, bool centered) {
    return trellis ? (centered ? Coding::kCenteredTrellis : Coding::kTrellis)
                   : (centered ? Coding::kCentered : Coding::kScalar);
}

TQ_FORMAT_TABLE int kMinBits = 2;
TQ_FORMAT_TABLE int kMaxBits = 8;
TQ_FORMAT_TABLE int kMinTrellisBits = 3;
TQ_FORMAT_TABLE int kMaxTrellisBits = 5;

TQ_FORMAT_TABLE int kStepDims = 16;    // a step: 16 consecutive dims of a row, the least that a head has
TQ_FORMAT_TABLE int kBlockCells = 64;  // a block: 64 consecutive cells, starting at a multiple of 64
TQ_FORMAT_TABLE int kCenterBits = 4;
TQ_FORMAT_TABLE int kUncenteredCells = 2;  // the first of a sequence: the center of block 0 comes from them

// A group: the dims that share one scale per cell, 32 for keys and 64 for values, counted from the row's start.
TQ_FORMAT_FN int group_steps_log2(Side side) {
    return side == Side::kKey ? 1 : 2;
}  // to shift instead of dividing
TQ_FORMAT_FN int group_steps(Side side) {
    return 1 << group_steps_log2(side);
}
TQ_FORMAT_FN int group_dims(Side side) {
    return kStepDims * group_steps(side);
}

}  // namespace tq
