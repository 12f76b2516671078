// AVX2 + AVX-VNNI (Alder Lake and later without AVX-512). The contract of every function is in ops_scalar.h.
#pragma once

#include "turboquant/cpu/simd/ops_avx2.h"

namespace tq::simd {

struct OpsAvxVnni : OpsAvx2 {
    static constexpr int kKeyBias = 128;

    static TQ_INLINE I dot_key(I acc, B key, int32_t query) {
        const __m256i q = _mm256_set1_epi32(query);
        return {_mm256_dpbusd_epi32(acc.lo, key.lo, q), _mm256_dpbusd_epi32(acc.hi, key.hi, q)};
    }
    static TQ_INLINE I dot_value(I acc, int32_t weight, B value) {
        const __m256i w = _mm256_set1_epi32(weight);
        return {_mm256_dpbusd_epi32(acc.lo, w, value.lo), _mm256_dpbusd_epi32(acc.hi, w, value.hi)};
    }
};

}  // namespace tq::simd
