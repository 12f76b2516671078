// Masks of one block of 64 cells, as base-2 logits.
#pragma once

#include <cstring>

#include "turboquant/attention/cell_range.h"
#include "turboquant/cpu/attention/softmax-inl.h"

namespace tq::attention_impl {

template <class Ops>
struct Masks {
    using F = typename Ops::F;

    // Says what a block's mask lets a row see.
    enum class Sight { kNothing, kEverything, kBiased };

    static TQ_INLINE Sight sight_of(const uint16_t* half) {
        uint64_t zero = 0, infinite = 0;
        for (int i = 0; i < kBlockCells; i += 4) {
            uint64_t four;
            std::memcpy(&four, half + i, sizeof four);
            zero |= four;
            infinite |= four ^ (kHalfMinusInfinity * 0x0001000100010001u);
        }
        return !infinite ? Sight::kNothing : !zero ? Sight::kEverything : Sight::kBiased;
    }

    // 64 base-2 logits: a constant mask, or `out`.
    static TQ_INLINE const float* mask_of_block(const uint16_t* half, float slope, float* out) {
        const Sight sight = sight_of(half);
        if (sight == Sight::kNothing) return kFullyMasked.logits;
        if (sight == Sight::kEverything) return kUnmasked.logits;
        const F factor = Ops::set1(slope * kLog2e);
        for (int i = 0; i < kBlockCells; i += 16) Ops::store(out + i, Ops::mul(Ops::load_half(half + i), factor));
        return out;
    }

    // What a row sees of cells [begin, begin + 64). mask: of cells from 0 on, null for zeros; cells outside of `cells`
    // are masked, and their masks are not read.
    static TQ_INLINE const float* load(const uint16_t* mask, float slope, int64_t begin, const CellRange& cells,
                                       float* out) {
        if (cells.first <= begin && cells.end >= begin + kBlockCells)
            return mask ? mask_of_block(mask + begin, slope, out) : kUnmasked.logits;
        const int64_t first = larger<int64_t>(0, cells.first - begin),
                      end = smaller<int64_t>(kBlockCells, cells.end - begin);
        if (first >= end) return kFullyMasked.logits;
        alignas(64) uint16_t half[kBlockCells];
        for (uint16_t& cell : half) cell = kHalfMinusInfinity;
        for (int64_t i = first; i < end; ++i) half[i] = mask ? mask[begin + i] : uint16_t{0};
        return mask_of_block(half, slope, out);
    }
};

}  // namespace tq::attention_impl
