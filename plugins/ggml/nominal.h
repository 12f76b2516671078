// Rows in the type that llama.cpp thinks a packed tensor has.
#pragma once

#include <ggml.h>

#include <cstring>

#include "turboquant/base/half.h"

namespace tq::plugin {

inline void to_nominal(ggml_type type, const float* row, int64_t n, uint8_t* bytes) {
    if (type == GGML_TYPE_F32) {
        std::memcpy(bytes, row, sizeof(float) * n);
        return;
    }
    for (int64_t i = 0; i < n; ++i) {
        const uint16_t half = type == GGML_TYPE_F16 ? float_to_half(row[i]) : float_to_bfloat16(row[i]);
        std::memcpy(bytes + 2 * i, &half, 2);
    }
}

inline void from_nominal(ggml_type type, const uint8_t* bytes, int64_t n, float* row) {
    if (type == GGML_TYPE_F32) {
        std::memcpy(row, bytes, sizeof(float) * n);
        return;
    }
    for (int64_t i = 0; i < n; ++i) {
        uint16_t half;
        std::memcpy(&half, bytes + 2 * i, 2);
        row[i] = type == GGML_TYPE_F16 ? half_to_float(half) : bfloat16_to_float(half);
    }
}

}  // namespace tq::plugin
