// The vector primitives as plain loops: 16 floats or 32-bit integers, 64 bytes. Every other Ops struct gives the same
// bits for the same calls, so that the algorithms above (encode-inl.h, attention-inl.h) agree exactly across ISAs.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "turboquant/base/half.h"
#include "turboquant/base/inline.h"
#include "turboquant/format/magnitude_table.h"
#include "turboquant/format/scale.h"

namespace tq::simd {

struct OpsScalar {
    struct F {
        float v[16];
    };  // 16 floats
    struct I {
        int32_t v[16];
    };  // 16 int32
    struct B {
        uint8_t v[64];
    };  // 64 bytes, four to a 32-bit lane

    // This is added to a key centroid in a decoded key tile: 0, or 128 where the dot product wants unsigned bytes.
    static constexpr int kKeyBias = 0;
    // Says how many I the kernels of both products should hold in registers, beside what they decode and load.
    static constexpr int kKeyAccumulators = 1, kValueAccumulators = 1;
    // Says whether kernels decode packed codes in registers; else tiles are always decoded to memory first.
    static constexpr bool kDecodesInRegisters = false;
    // Says whether lookup_bytes takes six bits as fast as four.
    static constexpr bool kIndexAnywhere = false;

    template <class Fn>
    static F map(Fn fn) {
        F r;
        for (int i = 0; i < 16; ++i) r.v[i] = fn(i);
        return r;
    }
    template <class Fn>
    static I map_int(Fn fn) {
        I r;
        for (int i = 0; i < 16; ++i) r.v[i] = fn(i);
        return r;
    }
    template <class Fn>
    static B map_bytes(Fn fn) {
        B r;
        for (int i = 0; i < 64; ++i) r.v[i] = static_cast<uint8_t>(fn(i));
        return r;
    }

    static F load(const float* p) {
        F r;
        std::memcpy(&r, p, sizeof r);
        return r;
    }
    static void store(float* p, F a) { std::memcpy(p, &a, sizeof a); }
    static F set1(float x) {
        return map([&](int) { return x; });
    }
    static F add(F a, F b) {
        return map([&](int i) { return a.v[i] + b.v[i]; });
    }
    static F sub(F a, F b) {
        return map([&](int i) { return a.v[i] - b.v[i]; });
    }
    static F mul(F a, F b) {
        return map([&](int i) { return a.v[i] * b.v[i]; });
    }
    static F div(F a, F b) {
        return map([&](int i) { return a.v[i] / b.v[i]; });
    }
    static F fma(F a, F b, F c) {
        return map([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
    }
    // b where the comparison is false or unordered, as x86 does.
    static F max(F a, F b) {
        return map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
    }
    static F min(F a, F b) {
        return map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
    }
    static F abs(F a) {
        return map([&](int i) { return std::fabs(a.v[i]); });
    }
    // 0 where the magnitude is below `least`, or NaN.
    static F zero_below(F a, float least) {
        return map([&](int i) { return std::fabs(a.v[i]) >= least ? a.v[i] : 0.0f; });
    }
    // lane i <- a[i ^ h] + a[i], or a[i ^ h] - a[i] where bit h of i is set
    template <int h>
    static F butterfly(F a) {
        return map([&](int i) { return (i & h) ? a.v[i ^ h] - a.v[i] : a.v[i ^ h] + a.v[i]; });
    }
    static float reduce_add(F a) {
        for (int h = 8; h > 0; h /= 2)
            for (int i = 0; i < h; ++i) a.v[i] = a.v[i] + a.v[i + h];
        return a.v[0];
    }
    static float reduce_max(F a) {
        for (int h = 8; h > 0; h /= 2)
            for (int i = 0; i < h; ++i) a.v[i] = a.v[i] > a.v[i + h] ? a.v[i] : a.v[i + h];
        return a.v[0];
    }

    // out[r] = reduction of rows[r]
    static void reduce_add_4(const F (&rows)[4], float* out) {
        for (int r = 0; r < 4; ++r) out[r] = reduce_add(rows[r]);
    }
    static void reduce_max_4(const F (&rows)[4], float* out) {
        for (int r = 0; r < 4; ++r) out[r] = reduce_max(rows[r]);
    }

    static I set1_int(int32_t x) {
        return map_int([&](int) { return x; });
    }
    static I add_int(I a, I b) {
        return map_int([&](int i) { return a.v[i] + b.v[i]; });
    }
    static I round_to_int(F a) {
        return map_int([&](int i) { return static_cast<int32_t>(std::nearbyint(a.v[i])); });
    }
    template <int n>
    static I shift_right_int(I a) {
        return map_int([&](int i) { return a.v[i] >> n; });
    }
    static I and_int(I a, int32_t x) {
        return map_int([&](int i) { return a.v[i] & x; });
    }
    static F to_float(I a) {
        return map([&](int i) { return static_cast<float>(a.v[i]); });
    }
    // 2^n for n in -127 (which gives 0) .. 127
    static F pow2(I n) {
        return map([&](int i) { return std::bit_cast<float>(static_cast<uint32_t>(n.v[i] + 127) << 23); });
    }
    // the low byte of each lane
    static void store_bytes(uint8_t* p, I a) {
        for (int i = 0; i < 16; ++i) p[i] = static_cast<uint8_t>(a.v[i]);
    }
    // the low bytes of four vectors, one after another; lanes are in 0..127
    static void store_bytes_4(uint8_t* p, const I (&a)[4]) {
        for (int v = 0; v < 4; ++v) store_bytes(p + 16 * v, a[v]);
    }

    // The codec's search uses it. n is 1 to 4 vectors, lanes of a are 0..2^15-1; those above 127 count as 127.
    // table.byte[a]; stepped: also the stepped form of the table is valid.
    template <bool stepped, int n>
    static void lookup_floats(const MagnitudeTable& table, const I (&a)[n], F (&out)[n]) {
        for (int v = 0; v < n; ++v) out[v] = map([&](int i) { return static_cast<float>(look_up(table, a[v].v[i])); });
    }
    // p[i] = table.byte[a], xor flip where x < 0
    template <bool stepped, int n>
    static void store_codes(uint8_t* p, const MagnitudeTable& table, const I (&a)[n], const F (&x)[n], uint8_t flip) {
        for (int v = 0; v < n; ++v) {
            for (int i = 0; i < 16; ++i) p[16 * v + i] = look_up(table, a[v].v[i]) ^ (x[v].v[i] < 0 ? flip : 0);
        }
    }
    // lane r: reduce_add(rows[r])
    static F reduce_add_16(const F* rows) {
        return map([&](int r) { return reduce_add(rows[r]); });
    }
    // bit i: a[i] <= x
    static uint32_t lanes_at_most(F a, float x) {
        uint32_t lanes = 0;
        for (int i = 0; i < 16; ++i) lanes |= uint32_t{a.v[i] <= x} << i;
        return lanes;
    }

    static F load_half(const uint16_t* p) {
        return map([&](int i) { return half_to_float(p[i]); });
    }
    static F load_scale(const uint8_t* p) {
        return map([&](int i) { return scale_from_code(p[i]); });
    }

    static B load_bytes(const void* p) {
        B r;
        std::memcpy(&r, p, sizeof r);
        return r;
    }
    static void store_bytes(void* p, B a) { std::memcpy(p, &a, sizeof a); }
    // Each byte's bits moved right by n (left for negative n); what enters at the other end is unspecified.
    static B shift_bits(B a, int n) {
        return map_bytes([&](int i) { return n >= 0 ? a.v[i] >> n : a.v[i] << -n; });
    }
    // Takes of each byte the bits of the mask from a, the others from b.
    static B select_bits(int mask, B a, B b) {
        return map_bytes([&](int i) { return (a.v[i] & mask) | (b.v[i] & ~mask); });
    }
    static B xor_bytes(B a, uint8_t x) {
        return map_bytes([&](int i) { return a.v[i] ^ x; });
    }
    static B xor_bytes(B a, B b, B c) {
        return map_bytes([&](int i) { return a.v[i] ^ b.v[i] ^ c.v[i]; });
    }
    // Byte k of a lane <- byte k - n of a's lane; the first n bytes <- the last n of b's lane. n is 1 to 3.
    template <int n>
    static B next_bytes(B a, B b) {
        return map_bytes([&](int i) { return i % 4 >= n ? a.v[i - n] : b.v[i + 4 - n]; });
    }
    // Lane l <- lane l - n of a; the first n lanes <- the last n of b. n is 1 to 3.
    template <int n>
    static B next_lanes(B a, B b) {
        return map_bytes([&](int i) { return i >= 4 * n ? a.v[i - 4 * n] : b.v[64 + i - 4 * n]; });
    }
    // table[low bits of the index], bits 2..7; anything may be above them. The table's 2^bits entries are repeated to
    // 128, or for 6 bits (with kIndexAnywhere, for fewer too) not.
    template <int bits>
    static B lookup_bytes(const uint8_t* table, B indices) {
        return map_bytes([&](int i) { return table[indices.v[i] & 127]; });
    }
    // table[low 4 bits of the index] of the first 16 entries, or, where the selector's bit is set, of the second 16.
    static B lookup_split(const uint8_t* table, B indices, B selector, int bit) {
        return map_bytes([&](int i) { return table[16 * (selector.v[i] >> bit & 1) + (indices.v[i] & 15)]; });
    }

    // Each lane: sum of four products. Key bytes carry kKeyBias; `query` is four int8 in -127..127.
    static I dot_key(I acc, B key, int32_t query) {
        int8_t q[4];
        std::memcpy(q, &query, 4);
        return map_int([&](int i) {
            int32_t sum = acc.v[i];
            for (int k = 0; k < 4; ++k) sum += static_cast<int8_t>(key.v[4 * i + k]) * q[k];
            return sum;
        });
    }
    // `weight` is four bytes in 0..127, value bytes are int8.
    static I dot_value(I acc, int32_t weight, B value) {
        uint8_t w[4];
        std::memcpy(w, &weight, 4);
        return map_int([&](int i) {
            int32_t sum = acc.v[i];
            for (int k = 0; k < 4; ++k) sum += static_cast<int8_t>(value.v[4 * i + k]) * w[k];
            return sum;
        });
    }

  private:
    static uint8_t look_up(const MagnitudeTable& table, int32_t a) {
        return table.byte[a < kMagnitudes ? a : kMagnitudes - 1];
    }
};

}  // namespace tq::simd
