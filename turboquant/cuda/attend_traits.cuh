// Sizes of one kernel instance.
#pragma once

#include "turboquant/cuda/attend_call.h"

namespace tq::cuda {

inline constexpr int kAttendWarps = 4;  // each takes blocks of its own; one prepares, and one finishes, each row
static_assert(kAttendWarps == kTileRows);

template <int kHeadDim_, int kKeyBits_, int kValueBits_>
struct AttendTraits {
    static constexpr int kHeadDim = kHeadDim_, kKeyBits = kKeyBits_, kValueBits = kValueBits_;
    static constexpr int kUnits = kHeadDim / kStepDims;

    // Groups that a head touches, at most: it may begin inside of one.
    static constexpr int groups_touched(Side side) {
        const int width = group_dims(side);
        return kHeadDim % width == 0 ? kHeadDim / width : (width - kStepDims + kHeadDim - 1) / width + 1;
    }
    static constexpr bool kWholeKeyGroups = kHeadDim % group_dims(Side::kKey) == 0;
    static constexpr bool kWholeValueGroups = kHeadDim % group_dims(Side::kValue) == 0;

    // What a warp keeps of a block in shared memory: codes, then scales, of keys and of values.
    static constexpr int kKeyCodes = kHeadDim * kKeyBits * 8, kValueCodes = kHeadDim * kValueBits * 8;
    static constexpr int kKeyBytes = kKeyCodes + groups_touched(Side::kKey) * kBlockCells;
    static constexpr int kValueBytes = kValueCodes + groups_touched(Side::kValue) * kBlockCells;
    static constexpr int kStageBytes = kKeyBytes + kValueBytes;

    // A partial result: rows, then a maximum and a sum of each.
    static constexpr int kPartialFloats = kTileRows * kHeadDim + 2 * kTileRows;
    static constexpr int kResultBytes = kAttendWarps * kPartialFloats * static_cast<int>(sizeof(float));

    static constexpr int kResultOffset = kAttendWarps * kStageBytes;  // [2 turns][warp] results of segments
    static constexpr int kQueryOffset = kResultOffset + 2 * kResultBytes;  // [2 digits][rows][head_dim]
    static constexpr int kFactorOffset = kQueryOffset + 2 * kTileRows * kHeadDim;
    static constexpr int kBarrierOffset = kFactorOffset + kTileRows * static_cast<int>(sizeof(float));
    static constexpr int kSharedBytes = kBarrierOffset + 2 * kAttendWarps * static_cast<int>(sizeof(uint64_t)) + 16;

    // Thread blocks of a multiprocessor: as many as registers allow, so that while one begins or ends the others read.
    static constexpr int kMinBlocks = kHeadDim <= 64 ? 4 : kHeadDim <= 128 ? 3 : 2;
};

}  // namespace tq::cuda
