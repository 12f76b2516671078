// AArch64 with i8mm. A file of its own: Clang declares vusdotq_s32 only where i8mm is enabled.
// The contract of every function is in ops_scalar.h.
#pragma once

#include "turboquant/cpu/simd/ops_neon.h"

namespace tq::simd {

// It exists for USDOT: keys need no sign, which saves 8-bit ones a step when they are decoded.
struct OpsI8mm : OpsNeon {
    static constexpr int kKeyBias = 128;

    static TQ_INLINE I dot_key(I acc, B key, int32_t query) {
        const int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(query));
        return {vusdotq_s32(acc.a, key.a, q), vusdotq_s32(acc.b, key.b, q), vusdotq_s32(acc.c, key.c, q),
                vusdotq_s32(acc.d, key.d, q)};
    }
};

}  // namespace tq::simd
