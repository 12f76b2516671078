// IEEE binary16 and bfloat16 conversions, round to nearest even, without library or ISA dependence.
#pragma once

#include <bit>
#include <cstdint>

namespace tq {

// `yes` where the condition holds, else `no`, in a form that no compiler makes a branch of.
inline uint32_t select_bits(bool condition, uint32_t yes, uint32_t no) {
    const uint32_t mask = 0u - static_cast<uint32_t>(condition);
    return (yes & mask) | (no & ~mask);
}

// Without branches, so that compilers make vector code of loops; and independent of whether the thread flushes denormal
// floats to zero: none are computed.
inline float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t magnitude = half & 0x7fffu;
    const uint32_t exponent_bias = select_bits(magnitude >= 0x7c00u, (255u - 31u) << 23, (127u - 15u) << 23);
    const uint32_t normal = (magnitude << 13) + exponent_bias;
    // 0.5 has an ulp of 2^-24, a subnormal half's.
    const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(0x3f000000u + (magnitude & 0x3ffu)) - 0.5f);
    return std::bit_cast<float>(select_bits(magnitude < 0x400u, subnormal, normal) | sign);
}

inline uint16_t float_to_half(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    // A subnormal half is made by adding 0.5, which aligns the mantissa so that the float adder rounds to multiples of
    // 2^-24.
    const uint32_t small = select_bits(magnitude < 0x38800000u, magnitude, 0);
    const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(small) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t finite = select_bits(magnitude < 0x38800000u, subnormal, normal);
    const uint32_t beyond = select_bits(magnitude > 0x7f800000u, 0x7e00u, 0x7c00u);  // NaN, or what rounds to infinity
    return static_cast<uint16_t>(sign | select_bits(magnitude >= 0x477ff000u, beyond, finite));
}

inline void halves_to_floats(const uint16_t* halves, int64_t n, float* floats) {
    for (int64_t i = 0; i < n; ++i) floats[i] = half_to_float(halves[i]);
}

inline void floats_to_halves(const float* floats, int64_t n, uint16_t* halves) {
    for (int64_t i = 0; i < n; ++i) halves[i] = float_to_half(floats[i]);
}

inline float bfloat16_to_float(uint16_t value) {
    return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

inline uint16_t float_to_bfloat16(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 64u);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace tq
