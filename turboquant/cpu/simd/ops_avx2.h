// AVX2 + FMA + F16C, two registers a vector. The contract of every function is in ops_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "turboquant/base/inline.h"
#include "turboquant/format/magnitude_table.h"

namespace tq::simd {

struct OpsAvx2 {
    struct F {
        __m256 lo, hi;
    };
    struct I {
        __m256i lo, hi;
    };
    struct B {
        __m256i lo, hi;
    };

    static constexpr int kKeyBias = 0;
    static constexpr int kKeyAccumulators = 4, kValueAccumulators = 4;
    static constexpr bool kDecodesInRegisters = true;
    static constexpr bool kIndexAnywhere = false;

    static TQ_INLINE F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    static TQ_INLINE void store(float* p, F a) {
        _mm256_storeu_ps(p, a.lo);
        _mm256_storeu_ps(p + 8, a.hi);
    }
    static TQ_INLINE F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    static TQ_INLINE F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
    static TQ_INLINE F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
    static TQ_INLINE F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
    static TQ_INLINE F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
    static TQ_INLINE F fma(F a, F b, F c) {
        return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
    }
    static TQ_INLINE F max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
    static TQ_INLINE F min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
    static TQ_INLINE F abs(F a) {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
    }
    static TQ_INLINE F zero_below(F a, float least) {
        const F size = abs(a);
        const __m256 x = _mm256_set1_ps(least);
        return {_mm256_and_ps(a.lo, _mm256_cmp_ps(size.lo, x, _CMP_GE_OQ)),
                _mm256_and_ps(a.hi, _mm256_cmp_ps(size.hi, x, _CMP_GE_OQ))};
    }
    template <int h>
    static TQ_INLINE F butterfly(F a) {
        if constexpr (h == 8) return {_mm256_add_ps(a.lo, a.hi), _mm256_sub_ps(a.lo, a.hi)};
        // A product with 1 or -1 is exact, so the fma rounds as the sum does.
        const __m256 signs = h == 4   ? _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1)
                             : h == 2 ? _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1)
                                      : _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1);
        return {_mm256_fmadd_ps(a.lo, signs, swap_lanes<h>(a.lo)), _mm256_fmadd_ps(a.hi, signs, swap_lanes<h>(a.hi))};
    }
    static TQ_INLINE float reduce_add(F a) {
        const __m256 h8 = _mm256_add_ps(a.lo, a.hi);
        const __m128 h4 = _mm_add_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
        const __m128 h2 = _mm_add_ps(h4, _mm_movehl_ps(h4, h4));
        return _mm_cvtss_f32(_mm_add_ss(h2, _mm_movehdup_ps(h2)));
    }
    static TQ_INLINE float reduce_max(F a) {
        const __m256 h8 = _mm256_max_ps(a.lo, a.hi);
        const __m128 h4 = _mm_max_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
        const __m128 h2 = _mm_max_ps(h4, _mm_movehl_ps(h4, h4));
        return _mm_cvtss_f32(_mm_max_ss(h2, _mm_movehdup_ps(h2)));
    }

    static TQ_INLINE void reduce_add_4(const F (&rows)[4], float* out) {
        reduce_4(rows, out, [](__m256 a, __m256 b) TQ_LAMBDA { return _mm256_add_ps(a, b); });
    }
    static TQ_INLINE void reduce_max_4(const F (&rows)[4], float* out) {
        reduce_4(rows, out, [](__m256 a, __m256 b) TQ_LAMBDA { return _mm256_max_ps(a, b); });
    }

    static TQ_INLINE I set1_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
    static TQ_INLINE I add_int(I a, I b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
    static TQ_INLINE I round_to_int(F a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
    template <int n>
    static TQ_INLINE I shift_right_int(I a) {
        return {_mm256_srai_epi32(a.lo, n), _mm256_srai_epi32(a.hi, n)};
    }
    static TQ_INLINE I and_int(I a, int32_t x) {
        const __m256i mask = _mm256_set1_epi32(x);
        return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
    }
    static TQ_INLINE F to_float(I a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
    static TQ_INLINE F pow2(I n) {
        const __m256i bias = _mm256_set1_epi32(127);
        return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.lo, bias), 23)),
                _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.hi, bias), 23))};
    }
    static TQ_INLINE void store_bytes(uint8_t* p, I a) {
        const __m256i mask = _mm256_set1_epi32(0xff);
        const __m256i words = _mm256_permute4x64_epi64(
            _mm256_packus_epi32(_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)), 0xd8);
        const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
    }
    static TQ_INLINE void store_bytes_4(uint8_t* p, const I (&a)[4]) {
        store_bytes_2(p, a[0], a[1]);
        store_bytes_2(p + 32, a[2], a[3]);
    }

    template <bool stepped, int n>
    static TQ_INLINE void lookup_floats(const MagnitudeTable& table, const I (&a)[n], F (&out)[n]) {
        const __m256i zero = _mm256_setzero_si256();
        __m256i bytes[(n + 1) / 2];
        pack_bytes(a, bytes);
        lookup_magnitudes<stepped>(table, bytes);
        for (int v = 0; v < n; ++v) {
            const __m256i pair = bytes[v / 2];
            const __m256i words = v % 2 == 0 ? _mm256_unpacklo_epi8(pair, zero) : _mm256_unpackhi_epi8(pair, zero);
            out[v] = to_float({_mm256_unpacklo_epi16(words, zero), _mm256_unpackhi_epi16(words, zero)});
        }
    }
    template <bool stepped, int n>
    static TQ_INLINE void store_codes(uint8_t* p, const MagnitudeTable& table, const I (&a)[n], const F (&x)[n],
                                      uint8_t flip) {
        const __m256 zero = _mm256_setzero_ps();
        I below_zero[n];
        for (int v = 0; v < n; ++v) {
            below_zero[v] = {_mm256_castps_si256(_mm256_cmp_ps(x[v].lo, zero, _CMP_LT_OQ)),
                             _mm256_castps_si256(_mm256_cmp_ps(x[v].hi, zero, _CMP_LT_OQ))};
        }
        __m256i codes[(n + 1) / 2], flipped[(n + 1) / 2];
        pack_bytes(a, codes);
        pack_bytes(below_zero, flipped);
        lookup_magnitudes<stepped>(table, codes);
        const __m256i flips = _mm256_set1_epi8(static_cast<char>(flip));
        const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        for (int v = 0; v < n; v += 2) {
            const __m256i bytes = _mm256_xor_si256(codes[v / 2], _mm256_and_si256(flipped[v / 2], flips));
            const __m256i ordered = _mm256_permutevar8x32_epi32(bytes, in_order);
            if (v + 1 < n)
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 16 * v), ordered);
            else
                _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16 * v), _mm256_castsi256_si128(ordered));
        }
    }
    static TQ_INLINE F reduce_add_16(const F* rows) { return {reduce_add_8(rows), reduce_add_8(rows + 8)}; }
    static TQ_INLINE uint32_t lanes_at_most(F a, float x) {
        const __m256 bound = _mm256_set1_ps(x);
        const int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, bound, _CMP_LE_OQ));
        const int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, bound, _CMP_LE_OQ));
        return static_cast<uint32_t>(lo | hi << 8);
    }

    static TQ_INLINE F load_half(const uint16_t* p) {
        return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
                _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
    }
    static TQ_INLINE F load_scale(const uint8_t* p) {
        const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __m256 shift = _mm256_set1_ps(0x1p106f);
        const __m256i lo = _mm256_slli_epi32(_mm256_cvtepu8_epi32(codes), 20);
        const __m256i hi = _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8)), 20);
        return {_mm256_mul_ps(_mm256_castsi256_ps(lo), shift), _mm256_mul_ps(_mm256_castsi256_ps(hi), shift)};
    }

    static TQ_INLINE B load_bytes(const void* p) {
        const __m256i* v = static_cast<const __m256i*>(p);
        return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
    }
    static TQ_INLINE void store_bytes(void* p, B a) {
        __m256i* v = static_cast<__m256i*>(p);
        _mm256_storeu_si256(v, a.lo);
        _mm256_storeu_si256(v + 1, a.hi);
    }
    static TQ_INLINE B shift_bits(B a, int n) { return {shift_words(a.lo, n), shift_words(a.hi, n)}; }
    static TQ_INLINE B select_bits(int bits, B a, B b) {
        const __m256i mask = _mm256_set1_epi8(static_cast<char>(bits));
        return {_mm256_or_si256(_mm256_and_si256(mask, a.lo), _mm256_andnot_si256(mask, b.lo)),
                _mm256_or_si256(_mm256_and_si256(mask, a.hi), _mm256_andnot_si256(mask, b.hi))};
    }
    static TQ_INLINE B xor_bytes(B a, B b, B c) {
        return {_mm256_xor_si256(_mm256_xor_si256(a.lo, b.lo), c.lo),
                _mm256_xor_si256(_mm256_xor_si256(a.hi, b.hi), c.hi)};
    }
    template <int n>
    static TQ_INLINE B next_bytes(B a, B b) {
        return {_mm256_or_si256(_mm256_slli_epi32(a.lo, 8 * n), _mm256_srli_epi32(b.lo, 32 - 8 * n)),
                _mm256_or_si256(_mm256_slli_epi32(a.hi, 8 * n), _mm256_srli_epi32(b.hi, 32 - 8 * n))};
    }
    template <int n>
    static TQ_INLINE B next_lanes(B a, B b) {
        return {next_lanes<n>(a.lo, b.hi), next_lanes<n>(a.hi, a.lo)};
    }
    static TQ_INLINE B xor_bytes(B a, uint8_t x) {
        const __m256i mask = _mm256_set1_epi8(static_cast<char>(x));
        return {_mm256_xor_si256(a.lo, mask), _mm256_xor_si256(a.hi, mask)};
    }
    template <int bits>
    static TQ_INLINE B lookup_bytes(const uint8_t* table, B codes) {
        const __m256i mask = _mm256_set1_epi8((1 << bits) - 1);
        codes = {_mm256_and_si256(codes.lo, mask), _mm256_and_si256(codes.hi, mask)};
        if constexpr (bits <= 4) {
            const __m256i t = load_table(table);
            return {_mm256_shuffle_epi8(t, codes.lo), _mm256_shuffle_epi8(t, codes.hi)};
        } else {
            B result{_mm256_setzero_si256(), _mm256_setzero_si256()};
            for (int part = 0; part < (1 << (bits - 4)); ++part) {
                // Codes of other parts get bit 7 set, for which vpshufb gives zero.
                const __m256i t = load_table(table + 16 * part);
                const __m256i flip = _mm256_set1_epi8(static_cast<char>(part << 4)), bound = _mm256_set1_epi8(0x70);
                const __m256i lo = _mm256_adds_epu8(_mm256_xor_si256(codes.lo, flip), bound);
                const __m256i hi = _mm256_adds_epu8(_mm256_xor_si256(codes.hi, flip), bound);
                result = {_mm256_or_si256(result.lo, _mm256_shuffle_epi8(t, lo)),
                          _mm256_or_si256(result.hi, _mm256_shuffle_epi8(t, hi))};
            }
            return result;
        }
    }

    static TQ_INLINE B lookup_split(const uint8_t* table, B indices, B selector, int bit) {
        const __m256i first = load_table(table), second = load_table(table + 16), mask = _mm256_set1_epi8(15);
        const B top = shift_bits(selector, bit - 7);
        const __m256i lo = _mm256_and_si256(indices.lo, mask), hi = _mm256_and_si256(indices.hi, mask);
        return {_mm256_blendv_epi8(_mm256_shuffle_epi8(first, lo), _mm256_shuffle_epi8(second, lo), top.lo),
                _mm256_blendv_epi8(_mm256_shuffle_epi8(first, hi), _mm256_shuffle_epi8(second, hi), top.hi)};
    }

    // |key| * sign(query, key): the pair sums stay below 2 * 127 * 127 < 2^15, so vpmaddubsw never saturates.
    static TQ_INLINE I dot_key(I acc, B key, int32_t query) {
        const __m256i q = _mm256_set1_epi32(query);
        return {dot(acc.lo, _mm256_abs_epi8(key.lo), _mm256_sign_epi8(q, key.lo)),
                dot(acc.hi, _mm256_abs_epi8(key.hi), _mm256_sign_epi8(q, key.hi))};
    }
    static TQ_INLINE I dot_value(I acc, int32_t weight, B value) {
        const __m256i w = _mm256_set1_epi32(weight);
        return {dot(acc.lo, w, value.lo), dot(acc.hi, w, value.hi)};
    }

  private:
    using Words = uint16_t __attribute__((vector_size(32)));
    // The intrinsics want constants where this is compiled, operators only where it runs fast.
    static TQ_INLINE __m256i shift_words(__m256i a, int n) {
        const auto words = reinterpret_cast<Words>(a);
        return n == 0 ? a : reinterpret_cast<__m256i>(n > 0 ? words >> n : words << -n);
    }
    template <int n>
    static TQ_INLINE __m256i next_lanes(__m256i a, __m256i b) {
        return _mm256_alignr_epi8(a, _mm256_permute2x128_si256(b, a, 0x21), 16 - 4 * n);
    }
    static TQ_INLINE void store_bytes_2(uint8_t* p, I a, I b) {
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a.lo, a.hi), _mm256_packs_epi32(b.lo, b.hi));
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(packed, order));
    }
    // The tree of reduce_add for four vectors at once: lanes 8 apart, then 4, 2, 1.
    template <class Combine>
    static TQ_INLINE void reduce_4(const F (&rows)[4], float* out, Combine combine) {
        __m256 h8[4];
        for (int r = 0; r < 4; ++r) h8[r] = combine(rows[r].lo, rows[r].hi);
        const __m256 ab =
            combine(_mm256_permute2f128_ps(h8[0], h8[1], 0x20), _mm256_permute2f128_ps(h8[0], h8[1], 0x31));
        const __m256 cd =
            combine(_mm256_permute2f128_ps(h8[2], h8[3], 0x20), _mm256_permute2f128_ps(h8[2], h8[3], 0x31));
        const __m256 h2 = combine(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
        const __m256 h1 =
            combine(_mm256_shuffle_ps(h2, h2, 0x88), _mm256_shuffle_ps(h2, h2, 0xdd));  // a c a c | b d b d
        _mm_storeu_ps(out, _mm_unpacklo_ps(_mm256_castps256_ps128(h1), _mm256_extractf128_ps(h1, 1)));
    }
    static TQ_INLINE __m256i load_table(const uint8_t* table) {
        return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    }
    static TQ_INLINE __m256i dot(__m256i acc, __m256i unsigned_bytes, __m256i signed_bytes) {
        const __m256i pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
        acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        // GCC would put off a chain's additions until it holds every product at once, in memory. It can't see through
        // this.
        asm("" : "+x"(acc));
        return acc;
    }
    template <int h>
    static TQ_INLINE __m256 swap_lanes(__m256 a) {
        if constexpr (h == 4)
            return _mm256_permute2f128_ps(a, a, 1);
        else
            return _mm256_permute_ps(a, h == 2 ? 0x4e : 0xb1);
    }
    // The tree of reduce_add for eight vectors at once: lanes 8 apart, then 4, 2, 1.
    static TQ_INLINE __m256 reduce_add_8(const F* rows) {
        __m256 h4[4], h2[2];
        for (int r = 0; r < 4; ++r) {
            const __m256 a = _mm256_add_ps(rows[r].lo, rows[r].hi), b = _mm256_add_ps(rows[r + 4].lo, rows[r + 4].hi);
            h4[r] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
        }
        for (int r = 0; r < 2; ++r) {
            const __m256 a = h4[2 * r], b = h4[2 * r + 1];
            h2[r] = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
        }
        return _mm256_add_ps(_mm256_shuffle_ps(h2[0], h2[1], 0x88), _mm256_shuffle_ps(h2[0], h2[1], 0xdd));
    }
    // Integers as bytes, saturated to -128..127. Of each two vectors the quads come in the order 0 2 4 6, 1 3 5 7.
    template <int n, int pairs>
    static TQ_INLINE void pack_bytes(const I (&a)[n], __m256i (&bytes)[pairs]) {
        for (int i = 0; i < pairs; ++i) {
            const I x = a[2 * i], y = a[2 * i + 1 < n ? 2 * i + 1 : 2 * i];
            bytes[i] = _mm256_packs_epi16(_mm256_packs_epi32(x.lo, x.hi), _mm256_packs_epi32(y.lo, y.hi));
        }
    }
    template <bool stepped, int n>
    static TQ_INLINE void lookup_magnitudes(const MagnitudeTable& table, __m256i (&a)[n]) {
        if constexpr (stepped) {
            const __m256i below = load_table(elements(table.below)), above = load_table(elements(table.above));
            const __m256i border = load_table(elements(table.border));
            for (__m256i& x : a) {
                const __m256i run = _mm256_and_si256(_mm256_srli_epi16(x, 3), _mm256_set1_epi8(0x0f));
                const __m256i is_above = _mm256_cmpgt_epi8(x, _mm256_shuffle_epi8(border, run));
                x = _mm256_blendv_epi8(_mm256_shuffle_epi8(below, run), _mm256_shuffle_epi8(above, run), is_above);
            }
        } else {
            __m256i result[n];
            for (int part = 0; part < 8; ++part) {
                const __m256i change = load_table(elements(table.change) + 16 * part);
                const __m256i begin = _mm256_set1_epi8(static_cast<char>(16 * part));
                for (int i = 0; i < n; ++i) {
                    // Zero for magnitudes before the part, which become negative.
                    const __m256i bytes = _mm256_shuffle_epi8(change, _mm256_sub_epi8(a[i], begin));
                    result[i] = part == 0 ? bytes : _mm256_xor_si256(result[i], bytes);
                }
            }
            for (int i = 0; i < n; ++i) a[i] = result[i];
        }
    }
};

}  // namespace tq::simd
