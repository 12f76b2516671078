// Sizes of one kernel instance.
#pragma once

#include "turboquant/cuda/attend_call.h"

namespace tq::cuda {

inline constexpr int kAttendWarps = 4;  // each takes blocks of its own; one prepares, and one finishes, each row

// kRows: query rows of a tile, 4 or 8.
template <int kHeadDim_, int kKeyBits_, int kValueBits_, int kRows_>
struct AttendTraits {
    static constexpr int kRows = kRows_, kRowsOfWarp = kRows / kAttendWarps;
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
    // A partial result: rows, then a maximum and a sum of each.
    static constexpr int kPartialFloats = kRows * kHeadDim + 2 * kRows;
    static constexpr int kResultBytes = kAttendWarps * kPartialFloats * static_cast<int>(sizeof(float));

    // Thread blocks of a multiprocessor, as far as registers allow: while one begins or ends the others read.
    static constexpr int kMinBlocks = kHeadDim > 128 || kRows == 8 ? 2 : kHeadDim > 64 ? 3 : 4;
    // A warp's slots of shared memory, which keys and values of its blocks go to in turn. With three, everything is
    // fetched a whole block ahead; with two, as much as there is time for. Three, if they cost no thread block.
    static constexpr int kSlotBytes = kKeyBytes > kValueBytes ? kKeyBytes : kValueBytes;
    static constexpr int shared_bytes(int slots) {
        return kAttendWarps * slots * (kSlotBytes + static_cast<int>(sizeof(uint64_t))) + 2 * kResultBytes +
               2 * kRows * kHeadDim + kRows * static_cast<int>(sizeof(float));
    }
    static constexpr int blocks_that_fit(int slots) {
        constexpr int kSharedOfMultiprocessor = 228 << 10, kReserved = 1 << 10;
        const int n = kSharedOfMultiprocessor / (shared_bytes(slots) + kReserved);
        return n < kMinBlocks ? n : kMinBlocks;
    }
    static constexpr int kSlots = blocks_that_fit(3) < blocks_that_fit(2) ? 2 : 3;

    static constexpr int kStageBytes = kSlots * kSlotBytes;                  // of a warp
    static constexpr int kResultOffset = kAttendWarps * kStageBytes;         // [2 turns][warp] results of segments
    static constexpr int kBarrierOffset = kResultOffset + 2 * kResultBytes;  // [warp][slot]
    static constexpr int kQueryOffset =                                      // [2 digits][rows][head_dim]
        kBarrierOffset + kAttendWarps * kSlots * static_cast<int>(sizeof(uint64_t));
    static constexpr int kFactorOffset = kQueryOffset + 2 * kRows * kHeadDim;
    static constexpr int kSharedBytes = shared_bytes(kSlots);
};

}  // namespace tq::cuda
