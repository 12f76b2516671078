// Packed codes to matrix A: the levels of a slot's eight codes, four bytes in each of two registers.
//
// PRMT looks four codes up at once. From 4 bits on it looks up magnitudes, twice: of the positive levels and of the
// negative ones, 0 for the others (a selector with its top bit set gives the sign of a magnitude, 0). Level =
// positive - negative, a product for each; C comes for free as the other's.
#pragma once

#include "turboquant/cuda/ptx.cuh"
#include "turboquant/cuda/record_order.h"

namespace tq::cuda {

struct Eight {
    uint32_t low, high;  // of codes 0-3, 4-7
};

// -1 and 256, which the compiler is not to know: a complement and a shift by 16 bits are then done by the multipliers,
// which have time, where it would have the logic units do them, which do the look-ups.
struct Multipliers {
    uint32_t minus_one, byte_one;

    __device__ __forceinline__ uint32_t complement(uint32_t x) const { return x * minus_one + minus_one; }
    __device__ __forceinline__ uint32_t high_half(uint32_t x) const { return __dp2a_lo(x, byte_one, 0u); }
};

// Four levels of a codebook as bytes: of codes, or the magnitudes of indices, from `first` on.
constexpr uint32_t four_levels(int bits, int first) {
    uint32_t bytes = 0;
    for (int i = 0; i < 4; ++i)
        bytes |= static_cast<uint32_t>(static_cast<uint8_t>(scalar_level(bits, first + i))) << (8 * i);
    return bytes;
}
constexpr uint32_t four_magnitudes(int bits, int first, int step) {
    uint32_t bytes = 0;
    for (int i = 0; i < 4; ++i) bytes |= static_cast<uint32_t>(positive_level(bits, first + step * i)) << (8 * i);
    return bytes;
}

template <int kBits>
struct SlotLevels {
    static constexpr bool kSigned = kBits <= 3 || kBits == 8;  // `positive` has the levels themselves, there is no other

    static __device__ __forceinline__ void decode(const uint32_t* words, int slot, const Multipliers& by, Eight& positive,
                                                  Eight& negative) {
        if constexpr (kBits == 2) {
            const uint32_t x = (slot % 2 ? words[slot / 2] >> 2 : words[slot / 2]) & 0x33333333;
            constexpr uint32_t kLevels = four_levels(2, 0);
            positive = {permute(kLevels, 0, x), permute(kLevels, 0, by.high_half(x))};
        } else if constexpr (kBits == 3) {
            const uint32_t x = slot < 3 ? words[slot] & 0x77777777
                                        : (words[0] >> 3 & 0x11111111) | (words[1] >> 2 & 0x22222222) |
                                              (words[2] >> 1 & 0x44444444);
            constexpr uint32_t kLow = four_levels(3, 0), kHigh = four_levels(3, 4);
            positive = {permute(kLow, kHigh, x), permute(kLow, kHigh, by.high_half(x))};
        } else if constexpr (kBits == 4) {
            // Code c < 8 is minus the magnitude 7 - c, code 15 - c plus that.
            constexpr uint32_t kLow = four_magnitudes(4, 7, -1), kHigh = four_magnitudes(4, 3, -1);
            const uint32_t x = words[slot], y = by.high_half(x);
            positive = {permute(kLow, kHigh, by.complement(x)), permute(kLow, kHigh, by.complement(y))};
            negative = {permute(kLow, kHigh, x), permute(kLow, kHigh, y)};
        } else if constexpr (kBits == 8) {
            positive = {words[2 * slot] ^ 0x80808080, words[2 * slot + 1] ^ 0x80808080};  // code - 128
        } else {
            const Eight magnitude = magnitudes(words, slot), plus = bytes_where(words[4] >> slot);
            positive = {magnitude.low & plus.low, magnitude.high & plus.high};
            negative = {magnitude.low & ~plus.low, magnitude.high & ~plus.high};
        }
    }

  private:
    // 0xff for every nibble whose lowest bit is set.
    static __device__ Eight bytes_where(uint32_t nibbles) {
        const uint32_t x = nibbles & 0x11111111;
        return {permute(0xff00, 0, x), permute(0xff00, 0, x >> 16)};
    }
    // 16 magnitudes from the index kFirst on, looked up by nibbles.
    template <int kFirst>
    static __device__ Eight sixteen(uint32_t x) {
        constexpr int kTop = (1 << (kBits - 1)) - 1 - kFirst;  // indices run from the largest magnitude on
        constexpr uint32_t a = four_magnitudes(kBits, kTop, -1), b = four_magnitudes(kBits, kTop - 4, -1),
                           c = four_magnitudes(kBits, kTop - 8, -1), d = four_magnitudes(kBits, kTop - 12, -1);
        const uint32_t y = x ^ 0x88888888;
        return {permute(a, b, x) | permute(c, d, y), permute(a, b, x >> 16) | permute(c, d, y >> 16)};
    }
    static __device__ Eight choose(const Eight& where, const Eight& yes, const Eight& no) {
        return {(yes.low & where.low) | (no.low & ~where.low), (yes.high & where.high) | (no.high & ~where.high)};
    }
    static __device__ Eight magnitudes(const uint32_t* words, int slot) {
        const uint32_t x = words[slot];
        if constexpr (kBits == 5) {
            return sixteen<0>(x);
        } else {
            const Eight bit4 = bytes_where(words[5] >> slot);
            const Eight low = choose(bit4, sixteen<16>(x), sixteen<0>(x));
            if constexpr (kBits == 6)
                return low;
            else
                return choose(bytes_where(words[6] >> slot), choose(bit4, sixteen<48>(x), sixteen<32>(x)), low);
        }
    }
};

// Accumulators begin as the bits of 1.5 * 2^23, so that the sum of less than 2^22 that they hold is a float's mantissa:
// subtracting is the conversion.
inline constexpr int32_t kZeroSum = 0x4b400000;

// A sum of products of levels.
template <int kBits>
struct LevelSums {
    Accumulators positive = {kZeroSum, kZeroSum, kZeroSum, kZeroSum};
    Accumulators negative = {kZeroSum, kZeroSum, kZeroSum, kZeroSum};

    __device__ float at(int i) const {
        return __int_as_float(positive[i]) -
               (SlotLevels<kBits>::kSigned ? __int_as_float(kZeroSum) : __int_as_float(negative[i]));
    }
};

// Calls fn.operator()<i>() for i in [kBegin, kEnd).
template <int kBegin, int kEnd, class Fn>
__device__ __forceinline__ void static_for(Fn&& fn) {
    if constexpr (kBegin < kEnd) {
        fn.template operator()<kBegin>();
        static_for<kBegin + 1, kEnd>(fn);
    }
}

// Words kFirst.. of the kAll of a head, as wide as they lie.
template <int kAll, int kFirst, int kCount, int kDone = 0>
__device__ __forceinline__ void load_words(const uint8_t* codes, int lane, uint32_t (&words)[kCount]) {
    if constexpr (kDone < kCount) {
        constexpr int kWhole = kAll / 4 * 4, kWord = kFirst + kDone, kLeft = kCount - kDone;
        constexpr bool kInFours = kWord < kWhole;
        const uint8_t* at = codes + word_offset(kAll, kWord, lane);
        if constexpr (kInFours && kWord % 4 == 0 && kLeft >= 4) {
            const uint4 four = *reinterpret_cast<const uint4*>(at);
            words[kDone] = four.x, words[kDone + 1] = four.y, words[kDone + 2] = four.z, words[kDone + 3] = four.w;
            load_words<kAll, kFirst, kCount, kDone + 4>(codes, lane, words);
        } else if constexpr (kWord % 2 == 0 && kLeft >= 2 && (kInFours || kAll - kWhole == 2)) {
            const uint2 two = *reinterpret_cast<const uint2*>(at);
            words[kDone] = two.x, words[kDone + 1] = two.y;
            load_words<kAll, kFirst, kCount, kDone + 2>(codes, lane, words);
        } else {
            words[kDone] = *reinterpret_cast<const uint32_t*>(at);
            load_words<kAll, kFirst, kCount, kDone + 1>(codes, lane, words);
        }
    }
}

}  // namespace tq::cuda
