// The words of a lane's unit (record_order.h) in registers, and its codes.
#pragma once

#include "turboquant/cuda/record_order.h"

namespace tq::cuda {

template <int kBits>
struct LaneWords {
    uint32_t word[kBits];

    // codes: of the head; n_words: of all its units.
    __device__ void load(const uint8_t* codes, int n_words, int unit, int lane) {
#pragma unroll
        for (int k = 0; k < kBits; ++k)
            word[k] = *reinterpret_cast<const uint32_t*>(codes + word_offset(n_words, unit * kBits + k, lane));
    }
    __device__ void store(uint8_t* codes, int n_words, int unit, int lane) const {
#pragma unroll
        for (int k = 0; k < kBits; ++k)
            *reinterpret_cast<uint32_t*>(codes + word_offset(n_words, unit * kBits + k, lane)) = word[k];
    }

    // Calls fn(cell, dim, code) for the lane's 32 codes.
    template <Side kSide, class Fn>
    __device__ void for_codes(int lane, Fn fn) const {
#pragma unroll
        for (int slot = 0; slot < kSlots; ++slot) {
#pragma unroll
            for (int index = 0; index < kSlotCodes; ++index) {
                const CodeOf at = code_of(kSide, lane, slot, index);
                fn(at.cell, at.dim, code_of_symbol(kBits, symbol_at(kBits, word, slot, index)));
            }
        }
    }
    // Makes the words of the codes that fn(cell, dim) gives.
    template <Side kSide, class Fn>
    __device__ void from_codes(int lane, Fn fn) {
#pragma unroll
        for (int k = 0; k < kBits; ++k) word[k] = 0;
#pragma unroll
        for (int slot = 0; slot < kSlots; ++slot) {
#pragma unroll
            for (int index = 0; index < kSlotCodes; ++index) {
                const CodeOf at = code_of(kSide, lane, slot, index);
                insert_symbol(kBits, word, slot, index, symbol_of_code(kBits, fn(at.cell, at.dim)));
            }
        }
    }
};

// Calls fn.operator()<side, bits>().
template <Side kSide, class Fn>
__device__ void with_bits(int bits, Fn fn) {
    switch (bits) {
        case 2:
            return fn.template operator()<kSide, 2>();
        case 3:
            return fn.template operator()<kSide, 3>();
        case 4:
            return fn.template operator()<kSide, 4>();
        case 5:
            return fn.template operator()<kSide, 5>();
        case 6:
            return fn.template operator()<kSide, 6>();
        case 7:
            return fn.template operator()<kSide, 7>();
        default:
            return fn.template operator()<kSide, 8>();
    }
}
template <class Fn>
__device__ void with_coding(const RecordOrder& order, Fn fn) {
    if (order.side == Side::kKey)
        with_bits<Side::kKey>(order.bits, fn);
    else
        with_bits<Side::kValue>(order.bits, fn);
}

}  // namespace tq::cuda
