// Float arithmetic in the CPU kernels' order and rounding (cpu/attention/softmax-inl.h, cpu/simd/ops_scalar.h), so that
// results have the same bits. It has to be compiled with safe math and without contraction.
#pragma once

#include <metal_stdlib>

#include "turboquant/format/portable.h"

#if defined(__METAL_VERSION__)
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
#endif

namespace tq {

constant constexpr float kLog2e = 1.44269504088896340736f;
// 1.5 * 2^23: adding it rounds a float below 2^22 to an integer, ties to even.
constant constexpr float kRoundToInt = 12582912.0f;
constant constexpr float kLargestInverse = 85070591730234615865843651857942052864.0f;  // 2^126

// b where the comparison is false or unordered.
inline float greater_of(float a, float b) {
    return a > b ? a : b;
}
inline float less_of(float a, float b) {
    return a < b ? a : b;
}

inline float rounded(float x) {
    return (x + kRoundToInt) - kRoundToInt;
}

// 2^x for x <= 126; exactly 0 for x <= -127 and NaN, exactly 1 for 0.
inline float exp2_of(float x) {
    x = greater_of(x, -127.0f);
    const float shifted = x + kRoundToInt;  // the integer is in its lowest bits
    const float f = x - (shifted - kRoundToInt);
    float p = 9.6181291e-3f;
    p = metal::fma(p, f, 5.5504109e-2f);
    p = metal::fma(p, f, 2.4022651e-1f);
    p = metal::fma(p, f, 6.9314718e-1f);
    p = metal::fma(p, f, 1.0f);
    return p * float_of_bits((bits_of_float(shifted) << 23) + (127u << 23));
}

inline float tanh_of(float x) {
    const float e = exp2_of(less_of(x * (2.0f * kLog2e), 126.0f));
    return 1.0f - 2.0f / (e + 1.0f);
}

// The base-2 logit of a dot product; mask: already times log2 e.
inline float finish_logit(float softcap, float dot, float logit_scale, float mask) {
    if (softcap > 0) return metal::fma(tanh_of(dot * (logit_scale / softcap)), softcap * kLog2e, mask);
    return metal::fma(dot, logit_scale, mask);
}

// The sum over 16 lanes (a half of a SIMD group) in the order of the CPU's reductions, in all of them.
inline float sum_of_half(float x) {
    x += metal::simd_shuffle_xor(x, ushort(8));
    x += metal::simd_shuffle_xor(x, ushort(4));
    x += metal::simd_shuffle_xor(x, ushort(2));
    return x + metal::simd_shuffle_xor(x, ushort(1));
}
inline float max_of_half(float x) {
    x = greater_of(x, metal::simd_shuffle_xor(x, ushort(8)));
    x = greater_of(x, metal::simd_shuffle_xor(x, ushort(4)));
    x = greater_of(x, metal::simd_shuffle_xor(x, ushort(2)));
    return greater_of(x, metal::simd_shuffle_xor(x, ushort(1)));
}

}  // namespace tq
