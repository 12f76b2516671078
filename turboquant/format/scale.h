// Group scales are stored in one byte: an unsigned E5M3 float with exponent bias 21.
// code 0 is exactly zero; codes 1..7 are subnormal (m/8 * 2^-20); the largest is 1.875 * 2^10 = 1920.
// A scale multiplies int8 centroids, so one step is 6-12 % and the encoder searches the neighbours (see
// cpu/codec/encode-inl.h).
#pragma once

#include <bit>
#include <cstdint>

#include "turboquant/base/inline.h"

namespace tq {

inline constexpr int kMaxScaleCode = 255;

// Without denormal floats on the way, which a thread may flush to zero.
TQ_INLINE constexpr float scale_from_code(uint8_t code) {
    constexpr uint32_t exponent_bias = (127u - 21u) << 23;
    if (code < 8) return static_cast<float>(code) * 0x1p-23f;
    return __builtin_bit_cast(float, (static_cast<uint32_t>(code) << 20) + exponent_bias);
}

// Largest code whose scale is <= `scale` (scale >= 0; saturates at the largest code).
TQ_INLINE int scale_code_floor(float scale) {
    if (!(scale < 1920.0f)) return kMaxScaleCode;
    if (scale < 0x1p-20f) return static_cast<int>(scale * 0x1p23f);
    return static_cast<int>(__builtin_bit_cast(uint32_t, scale) >> 20) - ((127 - 21) << 3);
}

// Smallest code whose scale is >= `scale` (saturates).
TQ_INLINE int scale_code_ceil(float scale) {
    const int code = scale_code_floor(scale);
    return code < kMaxScaleCode && scale_from_code(static_cast<uint8_t>(code)) < scale ? code + 1 : code;
}

TQ_INLINE int scale_code_nearest(float scale) {
    const int low = scale_code_floor(scale);
    if (low == kMaxScaleCode) return low;
    const float below = scale_from_code(static_cast<uint8_t>(low));
    const float above = scale_from_code(static_cast<uint8_t>(low + 1));
    return scale - below <= above - scale ? low : low + 1;
}

}  // namespace tq
