// AVX-512 in three levels, each with what the one before lacks: F/BW/VL/DQ, + VNNI, + VBMI.
// The contract of every function is in ops_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "turboquant/base/inline.h"
#include "turboquant/format/magnitude_table.h"

namespace tq::simd {

// F/BW/VL/DQ: Skylake-X.
struct OpsAvx512 {
    using F = __m512;
    using I = __m512i;
    struct B {
        __m512i v;
    };

    static constexpr int kKeyBias = 0;
    static constexpr int kKeyAccumulators = 8, kValueAccumulators = 16;
    static constexpr bool kDecodesInRegisters = true;
    static constexpr bool kIndexAnywhere = false;

    static TQ_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
    static TQ_INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a); }
    static TQ_INLINE F set1(float x) { return _mm512_set1_ps(x); }
    static TQ_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
    static TQ_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static TQ_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static TQ_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
    static TQ_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static TQ_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
    static TQ_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }
    static TQ_INLINE F abs(F a) { return _mm512_abs_ps(a); }
    static TQ_INLINE F zero_below(F a, float least) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(abs(a), _mm512_set1_ps(least), _CMP_GE_OQ), a);
    }
    template <int h>
    static TQ_INLINE F butterfly(F a) {
        constexpr __mmask16 mask = h == 8 ? 0xff00 : h == 4 ? 0xf0f0 : h == 2 ? 0xcccc : 0xaaaa;
        // A product with 1 or -1 is exact, so the fma rounds as the sum does.
        const __m512 signs = _mm512_mask_blend_ps(mask, _mm512_set1_ps(1), _mm512_set1_ps(-1));
        if constexpr (h == 8)
            return _mm512_fmadd_ps(a, signs, _mm512_shuffle_f32x4(a, a, 0x4e));
        else if constexpr (h == 4)
            return _mm512_fmadd_ps(a, signs, _mm512_shuffle_f32x4(a, a, 0xb1));
        else if constexpr (h == 2)
            return _mm512_fmadd_ps(a, signs, _mm512_permute_ps(a, 0x4e));
        else
            return _mm512_fmadd_ps(a, signs, _mm512_permute_ps(a, 0xb1));
    }
    static TQ_INLINE float reduce_add(F a) {
        const __m256 h8 = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        const __m128 h4 = _mm_add_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
        const __m128 h2 = _mm_add_ps(h4, _mm_movehl_ps(h4, h4));
        return _mm_cvtss_f32(_mm_add_ss(h2, _mm_movehdup_ps(h2)));
    }
    static TQ_INLINE float reduce_max(F a) {
        const __m256 h8 = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        const __m128 h4 = _mm_max_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
        const __m128 h2 = _mm_max_ps(h4, _mm_movehl_ps(h4, h4));
        return _mm_cvtss_f32(_mm_max_ss(h2, _mm_movehdup_ps(h2)));
    }

    static TQ_INLINE void reduce_add_4(const F (&rows)[4], float* out) {
        reduce_4(rows, out, [](__m512 a, __m512 b) TQ_LAMBDA { return _mm512_add_ps(a, b); });
    }
    static TQ_INLINE void reduce_max_4(const F (&rows)[4], float* out) {
        reduce_4(rows, out, [](__m512 a, __m512 b) TQ_LAMBDA { return _mm512_max_ps(a, b); });
    }

    static TQ_INLINE I set1_int(int32_t x) { return _mm512_set1_epi32(x); }
    static TQ_INLINE I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
    static TQ_INLINE I round_to_int(F a) { return _mm512_cvtps_epi32(a); }
    template <int n>
    static TQ_INLINE I shift_right_int(I a) {
        return _mm512_srai_epi32(a, n);
    }
    static TQ_INLINE I and_int(I a, int32_t x) { return _mm512_and_si512(a, _mm512_set1_epi32(x)); }
    static TQ_INLINE F to_float(I a) { return _mm512_cvtepi32_ps(a); }
    static TQ_INLINE F pow2(I n) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
    }
    static TQ_INLINE void store_bytes(uint8_t* p, I a) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
    }
    static TQ_INLINE void store_bytes_4(uint8_t* p, const I (&a)[4]) {
        const __m512i packed = _mm512_packs_epi16(_mm512_packs_epi32(a[0], a[1]), _mm512_packs_epi32(a[2], a[3]));
        _mm512_storeu_si512(p, _mm512_permutexvar_epi32(
                                   _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), packed));
    }

    template <bool, int n>
    static TQ_INLINE void lookup_floats(const MagnitudeTable& table, const I (&a)[n], F (&out)[n]) {
        for (int v = 0; v < n; ++v) out[v] = _mm512_cvtepi32_ps(lookup_magnitude(table, a[v]));
    }
    template <bool, int n>
    static TQ_INLINE void store_codes(uint8_t* p, const MagnitudeTable& table, const I (&a)[n], const F (&x)[n],
                                      uint8_t flip) {
        for (int v = 0; v < n; ++v) store_bytes(p + 16 * v, flip_below_zero(lookup_magnitude(table, a[v]), x[v], flip));
    }
    static TQ_INLINE F reduce_add_16(const F* rows) {
        // The tree of reduce_add: lanes 8 apart, then 4, 2, 1.
        __m512 h4[4], h2[2];
        for (int r = 0; r < 4; ++r) {
            const __m512 low = add_across<0x44, 0xee>(rows[r], rows[r + 4]);
            const __m512 high = add_across<0x44, 0xee>(rows[r + 8], rows[r + 12]);
            h4[r] = add_across<0x88, 0xdd>(low, high);
        }
        for (int r = 0; r < 2; ++r) {
            const __m512 a = h4[2 * r], b = h4[2 * r + 1];
            h2[r] = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
        }
        return _mm512_add_ps(_mm512_shuffle_ps(h2[0], h2[1], 0x88), _mm512_shuffle_ps(h2[0], h2[1], 0xdd));
    }
    static TQ_INLINE uint32_t lanes_at_most(F a, float x) {
        return _mm512_cmp_ps_mask(a, _mm512_set1_ps(x), _CMP_LE_OQ);
    }

    static TQ_INLINE F load_half(const uint16_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static TQ_INLINE F load_scale(const uint8_t* p) {
        const __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(codes, 20)), _mm512_set1_ps(0x1p106f));
    }

    static TQ_INLINE B load_bytes(const void* p) { return {_mm512_loadu_si512(p)}; }
    static TQ_INLINE void store_bytes(void* p, B a) { _mm512_storeu_si512(p, a.v); }
    static TQ_INLINE B shift_bits(B a, int n) {  // shift_words() of ops_avx2.h says why
        const auto words = reinterpret_cast<Words>(a.v);
        return n == 0 ? a : B{reinterpret_cast<__m512i>(n > 0 ? words >> n : words << -n)};
    }
    static TQ_INLINE B select_bits(int mask, B a, B b) {
        // b, mostly a temporary, is what the instruction overwrites: the mask would have to be copied first.
        return {_mm512_ternarylogic_epi32(b.v, a.v, _mm512_set1_epi8(static_cast<char>(mask)), 0xd8)};
    }
    static TQ_INLINE B xor_bytes(B a, B b, B c) { return {_mm512_ternarylogic_epi32(a.v, b.v, c.v, 0x96)}; }
    template <int n>
    static TQ_INLINE B next_bytes(B a, B b) {
        return {_mm512_or_si512(_mm512_slli_epi32(a.v, 8 * n), _mm512_srli_epi32(b.v, 32 - 8 * n))};
    }
    template <int n>
    static TQ_INLINE B next_lanes(B a, B b) {
        return {_mm512_alignr_epi32(a.v, b.v, 16 - n)};
    }
    static TQ_INLINE B xor_bytes(B a, uint8_t x) {
        return {_mm512_xor_si512(a.v, _mm512_set1_epi8(static_cast<char>(x)))};
    }
    template <int bits>
    static TQ_INLINE B lookup_bytes(const uint8_t* table, B indices) {
        return {lookup<bits>(table, _mm512_and_si512(indices.v, _mm512_set1_epi8((1 << bits) - 1)))};
    }
    static TQ_INLINE B lookup_split(const uint8_t* table, B indices, B selector, int bit) {
        const __mmask64 second = _mm512_test_epi8_mask(selector.v, _mm512_set1_epi8(static_cast<char>(1 << bit)));
        const __m512i low = _mm512_and_si512(indices.v, _mm512_set1_epi8(15));
        return {_mm512_mask_shuffle_epi8(lookup<4>(table, low), second, load_table(table + 16), low)};
    }

    // |key| * sign(query, key), as in ops_avx2.h.
    static TQ_INLINE I dot_key(I acc, B key, int32_t query) {
        const __m512i q = _mm512_set1_epi32(query);
        const __m512i signed_query = _mm512_mask_sub_epi8(q, _mm512_movepi8_mask(key.v), _mm512_setzero_si512(), q);
        return dot(acc, _mm512_abs_epi8(key.v), signed_query);
    }
    static TQ_INLINE I dot_value(I acc, int32_t weight, B value) {
        return dot(acc, _mm512_set1_epi32(weight), value.v);
    }

  private:
    using Words = uint16_t __attribute__((vector_size(64)));
    // The tree of reduce_add for four vectors at once: lanes 8 apart, then 4, 2, 1.
    template <class Combine>
    static TQ_INLINE void reduce_4(const F (&rows)[4], float* out, Combine combine) {
        const __m512 ab =
            combine(_mm512_shuffle_f32x4(rows[0], rows[1], 0x44), _mm512_shuffle_f32x4(rows[0], rows[1], 0xee));
        const __m512 cd =
            combine(_mm512_shuffle_f32x4(rows[2], rows[3], 0x44), _mm512_shuffle_f32x4(rows[2], rows[3], 0xee));
        const __m512 h4 = combine(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
        const __m512 h2 = combine(h4, _mm512_permute_ps(h4, 0x4e));
        const __m512 h1 = combine(h2, _mm512_permute_ps(h2, 0xb1));
        _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, h1)));
    }
    static TQ_INLINE __m512i load_table(const uint8_t* table) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    }
    // vpshufb sees the low four bits of a code (bit 7 is clear); each further bit chooses between two halves of the
    // table.
    template <int bits>
    static TQ_INLINE __m512i lookup(const uint8_t* table, __m512i codes) {
        if constexpr (bits <= 4) {
            return _mm512_shuffle_epi8(load_table(table), codes);
        } else {
            constexpr int half = 1 << (bits - 1);
            const __mmask64 in_high = _mm512_test_epi8_mask(codes, _mm512_set1_epi8(half));
            return _mm512_mask_blend_epi8(in_high, lookup<bits - 1>(table, codes),
                                          lookup<bits - 1>(table + half, codes));
        }
    }
    static TQ_INLINE I dot(I acc, __m512i unsigned_bytes, __m512i signed_bytes) {
        const __m512i pairs = _mm512_maddubs_epi16(unsigned_bytes, signed_bytes);
        return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    template <int first, int second>
    static TQ_INLINE F add_across(F a, F b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, first), _mm512_shuffle_f32x4(a, b, second));
    }
    static TQ_INLINE I lookup_magnitude(const MagnitudeTable& table, I a) {
        // vpermt2w picks the pair of bytes, the lowest bit the byte.
        const __m512i low = _mm512_load_si512(elements(table.byte)),
                      high = _mm512_load_si512(elements(table.byte) + 64);
        a = _mm512_min_epi32(a, _mm512_set1_epi32(kMagnitudes - 1));
        const __m512i pair = _mm512_permutex2var_epi16(low, _mm512_srli_epi32(a, 1), high);
        return and_int(_mm512_srlv_epi32(pair, _mm512_slli_epi32(and_int(a, 1), 3)), 0xff);
    }

  protected:
    static TQ_INLINE I flip_below_zero(I codes, F x, uint8_t flip) {
        const __mmask16 below_zero = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
        return _mm512_mask_xor_epi32(codes, below_zero, codes, _mm512_set1_epi32(flip));
    }
};

// + VNNI: Cascade Lake, Cooper Lake.
struct OpsAvx512Vnni : OpsAvx512 {
    static constexpr int kKeyBias = 128;

    static TQ_INLINE I dot_key(I acc, B key, int32_t query) {
        return _mm512_dpbusd_epi32(acc, key.v, _mm512_set1_epi32(query));
    }
    static TQ_INLINE I dot_value(I acc, int32_t weight, B value) {
        return _mm512_dpbusd_epi32(acc, _mm512_set1_epi32(weight), value.v);
    }
};

// + VBMI and VBMI2: Ice Lake, Zen 4.
struct OpsAvx512Vbmi : OpsAvx512Vnni {
    static constexpr bool kIndexAnywhere = true;

    template <bool, int n>
    static TQ_INLINE void lookup_floats(const MagnitudeTable& table, const I (&a)[n], F (&out)[n]) {
        for (int v = 0; v < n; ++v) out[v] = _mm512_cvtepi32_ps(lookup_magnitude(table, a[v]));
    }
    template <bool, int n>
    static TQ_INLINE void store_codes(uint8_t* p, const MagnitudeTable& table, const I (&a)[n], const F (&x)[n],
                                      uint8_t flip) {
        for (int v = 0; v < n; ++v) store_bytes(p + 16 * v, flip_below_zero(lookup_magnitude(table, a[v]), x[v], flip));
    }
    template <int bits>
    static TQ_INLINE B lookup_bytes(const uint8_t* table, B indices) {
        if constexpr (bits <= 6)
            return {_mm512_permutexvar_epi8(indices.v, _mm512_loadu_si512(table))};
        else
            return {_mm512_permutex2var_epi8(_mm512_loadu_si512(table), indices.v, _mm512_loadu_si512(table + 64))};
    }
    template <int n>
    static TQ_INLINE B next_bytes(B a, B b) {
        return {_mm512_shldi_epi32(a.v, b.v, 8 * n)};
    }

  private:
    static TQ_INLINE I lookup_magnitude(const MagnitudeTable& table, I a) {
        const __m512i low = _mm512_load_si512(elements(table.byte)),
                      high = _mm512_load_si512(elements(table.byte) + 64);
        a = _mm512_min_epi32(a, _mm512_set1_epi32(kMagnitudes - 1));
        return _mm512_maskz_permutex2var_epi8(0x1111111111111111u, low, a, high);
    }
};

}  // namespace tq::simd
