// Levels of codes, computed: Apple's GPUs are slow with tables. t is how far a code's number is from the middle of the
// sorted levels; these are an odd polynomial of it, rounded to the nearest integer. It is exact for every code, which
// tests/metal compare with format/levels.h.
#pragma once

#include "turboquant/format/levels.h"
#include "turboquant/metal/numerics.h"
#include "turboquant/metal/params.h"

namespace tq {

constexpr int bits_of(int codes) {
    return codes % kTrellisFlag;
}
constexpr bool is_trellis_of(int codes) {
    return codes >= kTrellisFlag;
}

// The number from which t is counted. Trellis codes choose among twice as many levels; at 8 bits the middle is code 128.
constexpr float middle_of(int codes) {
    return codes == kMaxBits ? 128.0f : 0.5f * float((1 << (bits_of(codes) + (is_trellis_of(codes) ? 1 : 0))) - 1);
}

// Coefficients of t, t^3, t^5, ...: the best approximation of the levels in the sense of the largest error, which stays
// below 0.46. Trellis codes of 5 bits have none: their levels are not smooth enough.
template <int codes>
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
template <>
struct LevelPolynomial<kTrellisFlag + 3> {
    static constexpr int terms() { return 4; }
    static float coefficient(int i) {
        constexpr float c[] = {10.6598864f, 0.0685066432f, -0.000772612111f, 2.75857619e-05f};
        return c[i];
    }
};
template <>
struct LevelPolynomial<kTrellisFlag + 4> {
    static constexpr int terms() { return 5; }
    static float coefficient(int i) {
        constexpr float c[] = {4.62768316f, 0.00324432668f, 7.68924219e-05f, -5.591275e-07f, 1.83869242e-09f};
        return c[i];
    }
};

// Levels of four codes from t.
template <int codes>
struct Levels {
    static float4 of(float4 t) {
        using Polynomial = LevelPolynomial<codes>;
        const float4 square = t * t;
        float4 p = float4(Polynomial::coefficient(Polynomial::terms() - 1));
#pragma unroll
        for (int i = Polynomial::terms() - 2; i >= 0; --i)
            p = metal::fma(p, square, float4(Polynomial::coefficient(i)));
        return metal::fma(t, p, float4(kRoundToInt)) - kRoundToInt;
    }
};
template <>
struct Levels<kMaxBits> {
    static float4 of(float4 t) { return t; }
};
template <>
struct Levels<kTrellisFlag + kMaxTrellisBits> {
    static float level(float t) { return float(sorted_trellis_level(5, int(t + middle_of(kTrellisFlag + 5)))); }
    static float4 of(float4 t) { return float4(level(t.x), level(t.y), level(t.z), level(t.w)); }
};

}  // namespace tq
