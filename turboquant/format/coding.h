// How values are coded: what every engine, kernel language and file agrees on. Plain constants and constexpr functions.
#pragma once

#include <cstdint>

#include "turboquant/base/inline.h"

namespace tq {

enum class Side : uint8_t { kKey, kValue };

// Scalar: a code for each value (format/codebook.h). Trellis: a value's level depends on the codes before it in its
// group (format/trellis.h). Centered, keys only: a block's keys are coded as what they differ by from a center.
enum class Coding : uint8_t { kScalar, kTrellis, kCentered, kCenteredTrellis };

TQ_INLINE constexpr bool is_trellis(Coding coding) {
    return coding == Coding::kTrellis || coding == Coding::kCenteredTrellis;
}
TQ_INLINE constexpr bool is_centered(Coding coding) {
    return coding == Coding::kCentered || coding == Coding::kCenteredTrellis;
}
TQ_INLINE constexpr Coding coding_of(bool trellis, bool centered) {
    return trellis ? (centered ? Coding::kCenteredTrellis : Coding::kTrellis)
                   : (centered ? Coding::kCentered : Coding::kScalar);
}

inline constexpr int kMinBits = 2;
inline constexpr int kMaxBits = 8;
inline constexpr int kMinTrellisBits = 3;
inline constexpr int kMaxTrellisBits = 5;

inline constexpr int kStepDims = 16;    // a step: 16 consecutive dims of a row, the least that a head has
inline constexpr int kBlockCells = 64;  // a block: 64 consecutive cells, starting at a multiple of 64
inline constexpr int kCenterBits = 4;
inline constexpr int kUncenteredCells = 2;  // the first of a sequence: the center of block 0 comes from them

// A group: the dims that share one scale per cell, 32 for keys and 64 for values, counted from the row's start.
TQ_INLINE constexpr int group_steps_log2(Side side) {
    return side == Side::kKey ? 1 : 2;
}  // to shift instead of dividing
TQ_INLINE constexpr int group_steps(Side side) {
    return 1 << group_steps_log2(side);
}
TQ_INLINE constexpr int group_dims(Side side) {
    return kStepDims * group_steps(side);
}

}  // namespace tq
