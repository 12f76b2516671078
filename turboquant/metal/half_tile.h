// Packed codes -> centroids, in registers. A lane of a half SIMD group reads its share of half a tile (cpu/record.h): 8
// units of 4 codes in `bits` words. Of keys that are four units of each of two cells, of values eight units of four
// cells of one dim.
//
// Codes become floats without shifts, conversions or tables, which are slow on Apple's GPUs: a field's bits, put into the
// mantissa of a power of two, are a float that is so much larger than it. A code's distance t from the middle of the
// codebook then gives its level as an odd polynomial, rounded to the nearest integer. It is exact for every code:
// tests/metal compares all levels with format/levels.h.
#pragma once

#include "turboquant/format/coding.h"
#include "turboquant/metal/numerics.h"

namespace tq {

// (field << shift) - less, where the field is `width` bits of the word from bit `position` on. Everything but the word
// is known at compile time. The field's lowest bit is made to weigh 2^shift.
inline float field_of(uint word, int position, int width, int shift, float less) {
    const bool upper = position + width > 23;  // beyond the mantissa
    const int p = upper ? position - 16 : position;
    const uint bits = (upper ? uint(as_type<ushort2>(word).y) : word) & (((1u << width) - 1u) << p);
    const uint base = uint(127 + 23 + shift - p) << 23;
    const float sum = as_type<float>(bits | base), offset = as_type<float>(base);
    // With p = 0 the offset's last bit is 1 and it has no room for a half.
    return p == 0 ? (sum - offset) - less : sum - (offset + less);
}

// What half the number of levels is, less 1/2: codes are symmetric around it. At 8 bits the middle is code 128.
constexpr float middle_of_codes(int bits) {
    return bits == kMaxBits ? 128.0f : 0.5f * float((1 << bits) - 1);
}

// Coefficients of t, t^3, t^5, ... by bits: the best approximation of the levels in format/levels.h in the sense of the
// largest error, which stays below 0.46.
template <int bits>
struct LevelPolynomial;
template <>
struct LevelPolynomial<2> {
    static constexpr int terms() { return 2; }
    static float coefficient(int i) {
        constexpr float c[] = {74.9166641f, 4.33333349f};
        return c[i];
    }
};
template <>
struct LevelPolynomial<3> {
    static constexpr int terms() { return 3; }
    static float coefficient(int i) {
        constexpr float c[] = {28.8190098f, 0.34375f, 0.020833334f};
        return c[i];
    }
};
template <>
struct LevelPolynomial<4> {
    static constexpr int terms() { return 3; }
    static float coefficient(int i) {
        constexpr float c[] = {12.2850428f, -0.00386382616f, 0.00151982519f};
        return c[i];
    }
};
template <>
struct LevelPolynomial<5> {
    static constexpr int terms() { return 5; }
    static float coefficient(int i) {
        constexpr float c[] = {5.2629056f, -0.00275122118f, 0.000136489602f, -8.03973819e-07f, 2.0537656e-09f};
        return c[i];
    }
};
template <>
struct LevelPolynomial<6> {
    static constexpr int terms() { return 7; }
    static float coefficient(int i) {
        constexpr float c[] = {2.28933406f, -0.000478034519f, 1.22321508e-05f, -5.44299112e-08f, 1.15892421e-10f, -1.14045045e-13f, 4.26597655e-17f};
        return c[i];
    }
};
template <>
struct LevelPolynomial<7> {
    static constexpr int terms() { return 9; }
    static float coefficient(int i) {
        constexpr float c[] = {1.17344964f, -0.00107314554f, 3.23541826e-06f, -4.63608973e-09f, 3.74715623e-12f, -1.77092535e-15f, 4.85272072e-19f, -7.13660688e-23f, 4.36011627e-27f};
        return c[i];
    }
};

// Centroids of four codes, t = code - middle_of_codes(bits).
template <int bits>
struct Levels {
    static float4 of(float4 t) {
        using Polynomial = LevelPolynomial<bits>;
        const float4 square = t * t;
        float4 p = float4(Polynomial::coefficient(Polynomial::terms() - 1));
#pragma unroll
        for (int i = Polynomial::terms() - 2; i >= 0; --i) p = metal::fma(p, square, float4(Polynomial::coefficient(i)));
        return metal::fma(t, p, float4(kRoundToInt)) - kRoundToInt;
    }
};
template <>
struct Levels<kMaxBits> {
    static float4 of(float4 t) { return t; }
};

template <int bits>
struct HalfTile {
    uint word[bits];  // of the widest plane first

    // tile: of a record; half: 0 or 1; lane: of 16.
    void load(device const uchar* tile, uint half_of_tile, uint lane) {
        int first = 0;  // word, and bits of a code, of the planes before
#pragma unroll
        for (int width = 8; width > 0; width /= 2) {
            if ((bits & width) == 0) continue;
            device const uint* plane = reinterpret_cast<device const uint*>(tile + 128 * first);
#pragma unroll
            for (int i = 0; i < width; ++i) word[first + i] = plane[16 * (half_of_tile * width + i) + lane];
            first += width;
        }
    }

    // The four of a unit of the half tile, 0 to 7.
    float4 centroids(int unit) const {
        float4 t = float4(0);
        int first = 0;
#pragma unroll
        for (int width = 8; width > 0; width /= 2) {
            if ((bits & width) == 0) continue;
            const int units = 8 / width, bit = unit % units * width;  // units that share a word
            const uint four = word[first + unit / units];
            const float less = first == 0 ? middle_of_codes(bits) : 0.0f;
            const float4 field = float4(field_of(four, bit, width, first, less), field_of(four, 8 + bit, width, first, less),
                                        field_of(four, 16 + bit, width, first, less),
                                        field_of(four, 24 + bit, width, first, less));
            t = first == 0 ? field : t + field;
            first += width;
        }
        return Levels<bits>::of(t);
    }
};

}  // namespace tq
