// Group scales are stored in one byte: an unsigned E5M3 float with exponent bias 21.
// code 0 is exactly zero; codes 1..7 are subnormal (m/8 * 2^-20); the largest is 1.875 * 2^10 = 1920.
// A scale multiplies int8 centroids, so one step is 6-12 % and the encoder searches the neighbours (see
// cpu/codec/encode-inl.h).
#pragma once

#include "turboquant/format/portable.h"

namespace tq {

TQ_FORMAT_TABLE int kMaxScaleCode = 255;

// Without denormal floats on the way, which a thread may flush to zero.
TQ_FORMAT_FN float scale_from_code(uint8_t code) {
    if (code < 8) return static_cast<float>(code) / 8388608.0f;
    return float_of_bits((static_cast<uint32_t>(code) << 20) + ((127u - 21u) << 23));
}

// Largest code whose scale is <= `scale` (scale >= 0; saturates at the largest code).
TQ_FORMAT_FN int scale_code_floor(float scale) {
    if (!(scale < 1920.0f)) return kMaxScaleCode;
    if (scale < 1.0f / 1048576.0f) return static_cast<int>(scale * 8388608.0f);
    return static_cast<int>(bits_of_float(scale) >> 20) - ((127 - 21) << 3);
}

// Smallest code whose scale is >= `scale` (saturates).
TQ_FORMAT_FN int scale_code_ceil(float scale) {
    const int code = scale_code_floor(scale);
    return code < kMaxScaleCode && scale_from_code(static_cast<uint8_t>(code)) < scale ? code + 1 : code;
}

TQ_FORMAT_FN int scale_code_nearest(float scale) {
    const int low = scale_code_floor(scale);
    if (low == kMaxScaleCode) return low;
    const float below = scale_from_code(static_cast<uint8_t>(low));
    const float above = scale_from_code(static_cast<uint8_t>(low + 1));
    return scale - below <= above - scale ? low : low + 1;
}

}  // namespace tq
