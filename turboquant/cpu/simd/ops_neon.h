// AArch64 Advanced SIMD with dot products, four registers a vector. The contract of every function is in ops_scalar.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "turboquant/base/inline.h"
#include "turboquant/format/magnitude_table.h"

namespace tq::simd {

struct OpsNeon {
    struct F {
        float32x4_t a, b, c, d;
    };
    struct I {
        int32x4_t a, b, c, d;
    };
    struct B {
        uint8x16_t a, b, c, d;
    };

    static constexpr int kKeyBias = 0;
    static constexpr int kKeyAccumulators = 4, kValueAccumulators = 4;
    static constexpr bool kDecodesInRegisters = true;
    static constexpr bool kIndexAnywhere = false;

    static TQ_INLINE F load(const float* p) {
        return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
    }
    static TQ_INLINE void store(float* p, F x) {
        vst1q_f32(p, x.a);
        vst1q_f32(p + 4, x.b);
        vst1q_f32(p + 8, x.c);
        vst1q_f32(p + 12, x.d);
    }
    static TQ_INLINE F set1(float x) { return all(vdupq_n_f32(x)); }
    static TQ_INLINE F add(F x, F y) {
        return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
    }
    static TQ_INLINE F sub(F x, F y) {
        return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
    }
    static TQ_INLINE F mul(F x, F y) {
        return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
    }
    static TQ_INLINE F div(F x, F y) {
        return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
    }
    static TQ_INLINE F fma(F x, F y, F z) {
        return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
    }
    static TQ_INLINE F max(F x, F y) {
        return {larger(x.a, y.a), larger(x.b, y.b), larger(x.c, y.c), larger(x.d, y.d)};
    }
    static TQ_INLINE F min(F x, F y) {
        return {smaller(x.a, y.a), smaller(x.b, y.b), smaller(x.c, y.c), smaller(x.d, y.d)};
    }
    static TQ_INLINE F abs(F x) { return {vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)}; }
    static TQ_INLINE F zero_below(F x, float least) {
        const float32x4_t y = vdupq_n_f32(least);
        return {zero_below(x.a, y), zero_below(x.b, y), zero_below(x.c, y), zero_below(x.d, y)};
    }
    template <int h>
    static TQ_INLINE F butterfly(F x) {
        if constexpr (h == 8) {
            return {vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d), vsubq_f32(x.a, x.c), vsubq_f32(x.b, x.d)};
        } else if constexpr (h == 4) {
            return {vaddq_f32(x.a, x.b), vsubq_f32(x.a, x.b), vaddq_f32(x.c, x.d), vsubq_f32(x.c, x.d)};
        } else
            return {butterfly_quad<h>(x.a), butterfly_quad<h>(x.b), butterfly_quad<h>(x.c), butterfly_quad<h>(x.d)};
    }
    static TQ_INLINE float reduce_add(F x) {
        const float32x4_t h4 = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
        const float32x2_t h2 = vadd_f32(vget_low_f32(h4), vget_high_f32(h4));
        return vget_lane_f32(h2, 0) + vget_lane_f32(h2, 1);
    }
    static TQ_INLINE float reduce_max(F x) {
        const float32x4_t h4 = larger(larger(x.a, x.c), larger(x.b, x.d));
        const float32x4_t h2 = larger(h4, vextq_f32(h4, h4, 2));
        return vgetq_lane_f32(larger(h2, vdupq_laneq_f32(h2, 1)), 0);
    }

    static TQ_INLINE void reduce_add_4(const F (&rows)[4], float* out) {
        for (int r = 0; r < 4; ++r) out[r] = reduce_add(rows[r]);
    }
    static TQ_INLINE void reduce_max_4(const F (&rows)[4], float* out) {
        for (int r = 0; r < 4; ++r) out[r] = reduce_max(rows[r]);
    }

    static TQ_INLINE I set1_int(int32_t x) { return all(vdupq_n_s32(x)); }
    static TQ_INLINE I add_int(I x, I y) {
        return {vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b), vaddq_s32(x.c, y.c), vaddq_s32(x.d, y.d)};
    }
    static TQ_INLINE I round_to_int(F x) {
        return {vcvtnq_s32_f32(x.a), vcvtnq_s32_f32(x.b), vcvtnq_s32_f32(x.c), vcvtnq_s32_f32(x.d)};
    }
    template <int n>
    static TQ_INLINE I shift_right_int(I x) {
        return {vshrq_n_s32(x.a, n), vshrq_n_s32(x.b, n), vshrq_n_s32(x.c, n), vshrq_n_s32(x.d, n)};
    }
    static TQ_INLINE I and_int(I x, int32_t y) {
        const int32x4_t mask = vdupq_n_s32(y);
        return {vandq_s32(x.a, mask), vandq_s32(x.b, mask), vandq_s32(x.c, mask), vandq_s32(x.d, mask)};
    }
    static TQ_INLINE F to_float(I x) {
        return {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d)};
    }
    static TQ_INLINE F pow2(I n) { return {pow2_quad(n.a), pow2_quad(n.b), pow2_quad(n.c), pow2_quad(n.d)}; }
    static TQ_INLINE void store_bytes(uint8_t* p, I x) { vst1q_u8(p, low_bytes(x)); }
    static TQ_INLINE void store_bytes_4(uint8_t* p, const I (&a)[4]) {
        for (int v = 0; v < 4; ++v) store_bytes(p + 16 * v, a[v]);
    }

    template <bool stepped, int n>
    static TQ_INLINE void lookup_floats(const MagnitudeTable& table, const I (&a)[n], F (&out)[n]) {
        for (int v = 0; v < n; ++v) {
            const uint8x16_t bytes = lookup_magnitudes<stepped>(table, a[v]);
            const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
            out[v] = {widen(vget_low_u16(low)), widen(vget_high_u16(low)), widen(vget_low_u16(high)),
                      widen(vget_high_u16(high))};
        }
    }
    template <bool stepped, int n>
    static TQ_INLINE void store_codes(uint8_t* p, const MagnitudeTable& table, const I (&a)[n], const F (&x)[n],
                                      uint8_t flip) {
        for (int v = 0; v < n; ++v) {
            const I below{mask(vcltzq_f32(x[v].a)), mask(vcltzq_f32(x[v].b)), mask(vcltzq_f32(x[v].c)),
                          mask(vcltzq_f32(x[v].d))};
            const uint8x16_t flips = vandq_u8(low_bytes(below), vdupq_n_u8(flip));
            vst1q_u8(p + 16 * v, veorq_u8(lookup_magnitudes<stepped>(table, a[v]), flips));
        }
    }
    static TQ_INLINE F reduce_add_16(const F* rows) {
        return {reduce_add_quad(rows), reduce_add_quad(rows + 4), reduce_add_quad(rows + 8),
                reduce_add_quad(rows + 12)};
    }
    static TQ_INLINE uint32_t lanes_at_most(F a, float x) {
        const float32x4_t bound = vdupq_n_f32(x);
        const I at_most{mask(vcleq_f32(a.a, bound)), mask(vcleq_f32(a.b, bound)), mask(vcleq_f32(a.c, bound)),
                        mask(vcleq_f32(a.d, bound))};
        const uint8x16_t weights{1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
        const uint8x16_t bits = vandq_u8(low_bytes(at_most), weights);
        return static_cast<uint32_t>(vaddv_u8(vget_low_u8(bits)) | vaddv_u8(vget_high_u8(bits)) << 8);
    }

    static TQ_INLINE F load_half(const uint16_t* p) {
        const float16x8_t low = vreinterpretq_f16_u16(vld1q_u16(p)), high = vreinterpretq_f16_u16(vld1q_u16(p + 8));
        return {vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low), vcvt_f32_f16(vget_low_f16(high)),
                vcvt_high_f32_f16(high)};
    }
    static TQ_INLINE F load_scale(const uint8_t* p) {
        const uint8x16_t codes = vld1q_u8(p);
        const uint16x8_t low = vmovl_u8(vget_low_u8(codes)), high = vmovl_high_u8(codes);
        return {scale(vget_low_u16(low)), scale(vget_high_u16(low)), scale(vget_low_u16(high)),
                scale(vget_high_u16(high))};
    }

    static TQ_INLINE B load_bytes(const void* p) {
        const uint8_t* v = static_cast<const uint8_t*>(p);
        return {vld1q_u8(v), vld1q_u8(v + 16), vld1q_u8(v + 32), vld1q_u8(v + 48)};
    }
    static TQ_INLINE void store_bytes(void* p, B x) {
        uint8_t* v = static_cast<uint8_t*>(p);
        vst1q_u8(v, x.a);
        vst1q_u8(v + 16, x.b);
        vst1q_u8(v + 32, x.c);
        vst1q_u8(v + 48, x.d);
    }
    // The intrinsics want constants where this is compiled, operators only where it runs fast.
    static TQ_INLINE B shift_bits(B x, int n) {
        if (n == 0) return x;
        if (n > 0) return {x.a >> n, x.b >> n, x.c >> n, x.d >> n};
        return {x.a << -n, x.b << -n, x.c << -n, x.d << -n};
    }
    static TQ_INLINE B select_bits(int bits, B x, B y) {
        const uint8x16_t mask = vdupq_n_u8(static_cast<uint8_t>(bits));
        return {vbslq_u8(mask, x.a, y.a), vbslq_u8(mask, x.b, y.b), vbslq_u8(mask, x.c, y.c), vbslq_u8(mask, x.d, y.d)};
    }
    static TQ_INLINE B xor_bytes(B x, B y, B z) {
        return {veorq_u8(veorq_u8(x.a, y.a), z.a), veorq_u8(veorq_u8(x.b, y.b), z.b), veorq_u8(veorq_u8(x.c, y.c), z.c),
                veorq_u8(veorq_u8(x.d, y.d), z.d)};
    }
    template <int n>
    static TQ_INLINE B next_bytes(B x, B y) {
        return {next_bytes<n>(x.a, y.a), next_bytes<n>(x.b, y.b), next_bytes<n>(x.c, y.c), next_bytes<n>(x.d, y.d)};
    }
    template <int n>
    static TQ_INLINE B next_lanes(B x, B y) {
        constexpr int skipped = 16 - 4 * n;
        return {vextq_u8(y.d, x.a, skipped), vextq_u8(x.a, x.b, skipped), vextq_u8(x.b, x.c, skipped),
                vextq_u8(x.c, x.d, skipped)};
    }
    static TQ_INLINE B xor_bytes(B x, uint8_t y) {
        const uint8x16_t mask = vdupq_n_u8(y);
        return {veorq_u8(x.a, mask), veorq_u8(x.b, mask), veorq_u8(x.c, mask), veorq_u8(x.d, mask)};
    }
    template <int bits>
    static TQ_INLINE B lookup_bytes(const uint8_t* table, B codes) {
        const uint8x16_t mask = vdupq_n_u8((1 << bits) - 1);
        return {lookup<bits>(table, vandq_u8(codes.a, mask)), lookup<bits>(table, vandq_u8(codes.b, mask)),
                lookup<bits>(table, vandq_u8(codes.c, mask)), lookup<bits>(table, vandq_u8(codes.d, mask))};
    }

    static TQ_INLINE B lookup_split(const uint8_t* table, B indices, B selector, int bit) {
        return {lookup_split(table, indices.a, selector.a, bit), lookup_split(table, indices.b, selector.b, bit),
                lookup_split(table, indices.c, selector.c, bit), lookup_split(table, indices.d, selector.d, bit)};
    }

    static TQ_INLINE I dot_key(I acc, B key, int32_t query) {
        return dot(acc, key, vreinterpretq_s8_s32(vdupq_n_s32(query)));
    }
    // A weight is below 128, so its sign does not matter.
    static TQ_INLINE I dot_value(I acc, int32_t weight, B value) {
        return dot(acc, value, vreinterpretq_s8_s32(vdupq_n_s32(weight)));
    }

  private:
    static TQ_INLINE uint8x16_t lookup_split(const uint8_t* table, uint8x16_t indices, uint8x16_t selector, int bit) {
        const uint8x16_t low = vandq_u8(indices, vdupq_n_u8(15)),
                         second = vtstq_u8(selector, vdupq_n_u8(static_cast<uint8_t>(1 << bit)));
        return vbslq_u8(second, vqtbl1q_u8(vld1q_u8(table + 16), low), vqtbl1q_u8(vld1q_u8(table), low));
    }
    template <int n>
    static TQ_INLINE uint8x16_t next_bytes(uint8x16_t x, uint8x16_t y) {
        const uint32x4_t after = vshlq_n_u32(vreinterpretq_u32_u8(x), 8 * n);
        return vreinterpretq_u8_u32(vsriq_n_u32(after, vreinterpretq_u32_u8(y), 32 - 8 * n));
    }
    static TQ_INLINE F all(float32x4_t x) { return {x, x, x, x}; }
    static TQ_INLINE I all(int32x4_t x) { return {x, x, x, x}; }

    // Not fmax, fmaxnm: the contract has y where the comparison is false or unordered.
    static TQ_INLINE float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
    static TQ_INLINE float32x4_t smaller(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
    static TQ_INLINE float32x4_t zero_below(float32x4_t x, float32x4_t least) {
        return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vcageq_f32(x, least)));
    }
    // A product with 1 or -1 is exact, so the fma rounds as the sum does.
    template <int h>
    static TQ_INLINE float32x4_t butterfly_quad(float32x4_t x) {
        if constexpr (h == 2)
            return vfmaq_f32(vextq_f32(x, x, 2), x, float32x4_t{1, 1, -1, -1});
        else
            return vfmaq_f32(vrev64q_f32(x), x, float32x4_t{1, -1, 1, -1});
    }
    static TQ_INLINE float32x4_t pow2_quad(int32x4_t n) {
        return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
    }
    // The low byte of each of the 16 lanes.
    static TQ_INLINE uint8x16_t low_bytes(I x) {
        const uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_s32(x.a), vreinterpretq_u16_s32(x.b));
        const uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_s32(x.c), vreinterpretq_u16_s32(x.d));
        return vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
    }
    // The tree of reduce_add for four vectors at once: lanes 8 apart, then 4, 2, 1.
    static TQ_INLINE float32x4_t reduce_add_quad(const F* rows) {
        const float32x4_t low = reduce_to_pairs(rows[0], rows[1]), high = reduce_to_pairs(rows[2], rows[3]);
        return vpaddq_f32(low, high);
    }
    static TQ_INLINE float32x4_t reduce_to_pairs(F x, F y) {
        const float32x4_t h4x = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
        const float32x4_t h4y = vaddq_f32(vaddq_f32(y.a, y.c), vaddq_f32(y.b, y.d));
        return vaddq_f32(vcombine_f32(vget_low_f32(h4x), vget_low_f32(h4y)),
                         vcombine_f32(vget_high_f32(h4x), vget_high_f32(h4y)));
    }
    static TQ_INLINE int32x4_t mask(uint32x4_t x) { return vreinterpretq_s32_u32(x); }
    template <bool stepped>
    static TQ_INLINE uint8x16_t lookup_magnitudes(const MagnitudeTable& table, I x) {
        const int16x8_t low = vqmovn_high_s32(vqmovn_s32(x.a), x.b), high = vqmovn_high_s32(vqmovn_s32(x.c), x.d);
        const uint8x16_t magnitudes = vreinterpretq_u8_s8(vqmovn_high_s16(vqmovn_s16(low), high));  // at most 127
        if constexpr (!stepped) return lookup128(elements(table.byte), magnitudes);
        const uint8x16_t run = vshrq_n_u8(magnitudes, 3);
        const uint8x16_t border = vqtbl1q_u8(vld1q_u8(elements(table.border)), run);
        return vbslq_u8(vcgtq_u8(magnitudes, border), vqtbl1q_u8(vld1q_u8(elements(table.above)), run),
                        vqtbl1q_u8(vld1q_u8(elements(table.below)), run));
    }
    static TQ_INLINE float32x4_t widen(uint16x4_t x) { return vcvtq_f32_u32(vmovl_u16(x)); }
    static TQ_INLINE float32x4_t scale(uint16x4_t codes) {
        return vmulq_n_f32(vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(codes), 20)), 0x1p106f);
    }
    // tbl gives 0 beyond its table, tbx leaves the byte as it is.
    static TQ_INLINE uint8x16_t lookup128(const uint8_t* table, uint8x16_t codes) {
        const uint8x16_t low = vqtbl4q_u8(vld1q_u8_x4(table), codes);
        return vqtbx4q_u8(low, vld1q_u8_x4(table + 64), veorq_u8(codes, vdupq_n_u8(64)));
    }
    template <int bits>
    static TQ_INLINE uint8x16_t lookup(const uint8_t* table, uint8x16_t codes) {
        if constexpr (bits <= 4)
            return vqtbl1q_u8(vld1q_u8(table), codes);
        else if constexpr (bits == 6)
            return vqtbl4q_u8(vld1q_u8_x4(table), codes);
        else
            return lookup128(table, codes);
    }
    static TQ_INLINE I dot(I acc, B x, int8x16_t y) {
        return {vdotq_s32(acc.a, vreinterpretq_s8_u8(x.a), y), vdotq_s32(acc.b, vreinterpretq_s8_u8(x.b), y),
                vdotq_s32(acc.c, vreinterpretq_s8_u8(x.c), y), vdotq_s32(acc.d, vreinterpretq_s8_u8(x.d), y)};
    }
};

}  // namespace tq::simd
