#include "turboquant/base/float_type.h"

#include <cstring>

#include "turboquant/base/half.h"

namespace tq {

void to_floats(const void* elements, FloatType type, int64_t n, float* floats) {
    const auto* halves = static_cast<const uint16_t*>(elements);
    switch (type) {
        case FloatType::kF32:
            std::memcpy(floats, elements, sizeof(float) * static_cast<size_t>(n));
            return;
        case FloatType::kF16:
            return halves_to_floats(halves, n, floats);
        case FloatType::kBf16:
            for (int64_t i = 0; i < n; ++i) floats[i] = bfloat16_to_float(halves[i]);
            return;
    }
}

void from_floats(const float* floats, int64_t n, FloatType type, void* elements) {
    auto* halves = static_cast<uint16_t*>(elements);
    switch (type) {
        case FloatType::kF32:
            std::memcpy(elements, floats, sizeof(float) * static_cast<size_t>(n));
            return;
        case FloatType::kF16:
            return floats_to_halves(floats, n, halves);
        case FloatType::kBf16:
            for (int64_t i = 0; i < n; ++i) halves[i] = float_to_bfloat16(floats[i]);
            return;
    }
}

}  // namespace tq
