// Element types of rows that come from an engine or go to it. Inside, rows are f32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "turboquant/base/inline.h"

namespace tq {

enum class FloatType { kF32, kF16, kBf16 };

TQ_INLINE constexpr size_t bytes_of(FloatType type) {
    return type == FloatType::kF32 ? 4 : 2;
}

// n elements of `type` as floats, and the other way round: to nearest, ties to even; what is too large for a half
// becomes infinity, and NaN stays NaN. Functions of an object of their own, so that kernels of any instruction set may
// call them and all give the same bits.
void to_floats(const void* elements, FloatType type, int64_t n, float* floats);
void from_floats(const float* floats, int64_t n, FloatType type, void* elements);

}  // namespace tq
