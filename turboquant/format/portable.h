// What the format's constants and functions need in each language that reads them: C++ (kernels of any instruction set
// among it), CUDA, and the C++ of GPU kernels: Metal, and C++ for OpenCL, which tests/format_language.cl has a compiler
// for. Headers that include nothing else of ours (coding.h, scale.h, levels.h, rotation_signs.h, trellis_path.h) are
// one source for all of them.
#pragma once

#if defined(__METAL_VERSION__) || defined(__OPENCL_CPP_VERSION__)

#define TQ_FORMAT_FN constexpr
#if defined(__METAL_VERSION__)
#define TQ_FORMAT_TABLE constant constexpr
#else
#define TQ_FORMAT_TABLE __constant constexpr
using uint8_t = uchar;
using uint32_t = uint;
using uint64_t = ulong;
using int64_t = long;
#endif

#else

#include <cstdint>

#include "turboquant/base/inline.h"

#define TQ_FORMAT_FN TQ_INLINE constexpr
#define TQ_FORMAT_TABLE inline constexpr

#endif

namespace tq {

TQ_FORMAT_FN float float_of_bits(uint32_t bits) {
#if defined(__METAL_VERSION__)
    return as_type<float>(bits);
#else
    return __builtin_bit_cast(float, bits);
#endif
}
TQ_FORMAT_FN uint32_t bits_of_float(float x) {
#if defined(__METAL_VERSION__)
    return as_type<uint32_t>(x);
#else
    return __builtin_bit_cast(uint32_t, x);
#endif
}

}  // namespace tq
