// Elements of rows from and to the outside: f32, f16 or bf16. Halves go through their bits, so that no denormal is lost
// where the hardware flushes them (base/half.h is the same for CPUs).
#pragma once

#include "turboquant/metal/numerics.h"
#include "turboquant/metal/params.h"

namespace tq {

inline float float_of_half(ushort half_bits) {
    const uint sign = uint(half_bits & 0x8000u) << 16, magnitude = half_bits & 0x7fffu;
    if (magnitude < 0x400u) {  // 0.5 has an ulp of 2^-24, a subnormal half's
        return float_of_bits(bits_of_float(float_of_bits(0x3f000000u + magnitude) - 0.5f) | sign);
    }
    const uint bias = magnitude >= 0x7c00u ? (255u - 31u) << 23 : (127u - 15u) << 23;
    return float_of_bits(((magnitude << 13) + bias) | sign);
}

inline ushort half_of_float(float value) {
    const uint bits = bits_of_float(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x477ff000u) return ushort(sign | (magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u));
    if (magnitude < 0x38800000u) return ushort(sign | (bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u));
    return ushort(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13));
}

inline float float_of_bfloat(ushort bits) {
    return float_of_bits(uint(bits) << 16);
}

inline ushort bfloat_of_float(float value) {
    const uint bits = bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return ushort((bits >> 16) | 64u);
    return ushort((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float load_element(device const uchar* base, int64_t index, int type) {
    if (type == kElementF32) return reinterpret_cast<device const float*>(base)[index];
    const ushort bits = reinterpret_cast<device const ushort*>(base)[index];
    return type == kElementF16 ? float_of_half(bits) : float_of_bfloat(bits);
}

inline void store_element(device uchar* base, int64_t index, int type, float value) {
    if (type == kElementF32) {
        reinterpret_cast<device float*>(base)[index] = value;
        return;
    }
    reinterpret_cast<device ushort*>(base)[index] = type == kElementF16 ? half_of_float(value) : bfloat_of_float(value);
}

// What a mask adds to a cell's logit, before it is made base 2; -infinity: the cell is not seen.
inline float load_mask(device const uchar* mask, int64_t index, int type) {
    if (type == kMaskBool) return mask[index] != 0 ? 0.0f : -INFINITY;
    if (type == kMaskF32) return float_of_half(half_of_float(reinterpret_cast<device const float*>(mask)[index]));
    const ushort bits = reinterpret_cast<device const ushort*>(mask)[index];
    return float_of_half(type == kMaskF16 ? bits : half_of_float(float_of_bfloat(bits)));
}

}  // namespace tq
