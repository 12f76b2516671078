// Rows in the type that llama.cpp thinks a packed tensor has: f16 or bf16.
#pragma once

#include <ggml.h>

#include "turboquant/base/half.h"

namespace tq::plugin {

// bytes: aligned for the type, as all rows of ggml are.
inline void to_nominal(ggml_type type, const float* row, int64_t n, uint8_t* bytes) {
    auto* halves = reinterpret_cast<uint16_t*>(bytes);
    if (type == GGML_TYPE_F16) return floats_to_halves(row, n, halves);
    for (int64_t i = 0; i < n; ++i) halves[i] = float_to_bfloat16(row[i]);
}

inline void from_nominal(ggml_type type, const uint8_t* bytes, int64_t n, float* row) {
    const auto* halves = reinterpret_cast<const uint16_t*>(bytes);
    if (type == GGML_TYPE_F16) return halves_to_floats(halves, n, row);
    for (int64_t i = 0; i < n; ++i) row[i] = bfloat16_to_float(halves[i]);
}

}  // namespace tq::plugin
