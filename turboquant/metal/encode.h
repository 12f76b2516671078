// Values of a group into codes and a scale, by a SIMD group, as cpu/codec/encode-inl.h does it: a lane tries one
// candidate scale.
#pragma once

#include "turboquant/format/levels.h"
#include "turboquant/format/scale_search.h"
#include "turboquant/metal/numerics.h"

namespace tq {

struct Encoder {
    int bits;
    bool unbiased;  // stores |y|^2 / <y, c>
    // By rounded magnitude, 0 to 127: the nearest level, and the code of a value that is not negative.
    threadgroup uchar* level;
    threadgroup uchar* code;
    threadgroup float* errors;  // [kMaxCandidates], the SIMD group's own

    // One entry of the tables; ties go to the smaller level (format/codebook.cpp).
    void fill(int magnitude) const {
        if (bits == kMaxBits) {
            level[magnitude] = uchar(magnitude);
            code[magnitude] = uchar(128 + magnitude);
            return;
        }
        const int n = 1 << (bits - 1);
        int nearest = 0;
        for (int i = 1; i < n; ++i) {
            const int next = positive_level(bits, i), least = positive_level(bits, nearest);
            if (metal::abs(magnitude - next) < metal::abs(magnitude - least)) nearest = i;
        }
        level[magnitude] = uchar(positive_level(bits, nearest));
        code[magnitude] = uchar(n + nearest);
    }

    float sigma_units() const { return 127.0f / kOutermostSigma[bits - kMinBits]; }
    float centroid(float scaled) const {
        const int magnitude = int(rounded(less_of(scaled, 4096.0f)));
        return float(level[magnitude < 127 ? magnitude : 127]);
    }
    // At 8 bits a level is what the value is rounded to after it is clipped: the same by the table.

    // y: `width` values, 16 to 64, in threadgroup memory that the whole SIMD group may read. codes: their bytes. Returns
    // the scale's code in all lanes.
    int encode(threadgroup const float* y, int width, threadgroup uchar* codes, uint lane) const {
        const int vectors = width / 16, lane16 = int(lane % 16);
        float energy = 0, top = 0;
        for (int v = 0; v < vectors; ++v) {
            const float value = y[16 * v + lane16];
            energy = metal::fma(value, value, energy);
            top = greater_of(top, metal::fabs(value));
        }
        energy = sum_of_half(energy);
        top = max_of_half(top);
        const ScaleWindow window =
            scale_window(metal::precise::sqrt(energy / float(width)), top, sigma_units());
        const int best = window.count == 0 ? 0 : best_scale(y, width, energy, top, window, lane);
        int stored = best;
        if (unbiased) {
            const float projection = projection_of(y, vectors, best, lane16);
            if (best > 0) stored = scale_code_nearest(energy / projection);
        }
        write_codes(y, width, best, stored, codes, lane);
        return stored;
    }

  private:
    static float inverse_of(int scale_code) { return scale_code == 0 ? 0.0f : 1.0f / scale_from_code(uchar(scale_code)); }

    // The lane's candidate: its squared error, infinite where it is not admissible (the encoder, given the decoded
    // values, would not look at it again).
    float error_of(threadgroup const float* y, int width, float energy, float top, int scale_code) const {
        const float scale = scale_from_code(uchar(scale_code)), inverse = inverse_of(scale_code);
        float sums[16], centroids = 0;
#pragma unroll
        for (int i = 0; i < 16; ++i) sums[i] = 0;
        for (int v = 0; v < width; v += 16) {
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                const float scaled = metal::fabs(y[v + i]) * inverse, c = centroid(scaled), error = scaled - c;
                sums[i] = metal::fma(error, error, sums[i]);
                centroids = metal::fma(c, c, centroids);  // integers
            }
        }
#pragma unroll
        for (int h = 8; h > 0; h /= 2) {
#pragma unroll
            for (int i = 0; i < h; ++i) sums[i] += sums[i + h];
        }
        const float sigma_energy = sigma_units() * sigma_units() * float(width);
        const bool admissible = centroid(top * inverse) >= float(kReachCentroid) ||
                                centroids * (kWindowHigh * kWindowHigh) >= sigma_energy;
        return admissible ? greater_of(greater_of(sums[0] * scale * scale, energy * kNegligibleError), 0.0f) : INFINITY;
    }

    // The least error wins, of those that are equal but for rounding the smallest scale.
    int best_scale(threadgroup const float* y, int width, float energy, float top, ScaleWindow window, uint lane) const {
        const int own = window.low + int(lane);
        errors[lane] = int(lane) < window.count
                           ? error_of(y, width, energy, top, own < kMaxScaleCode ? own : kMaxScaleCode)
                           : INFINITY;
        simdgroup_barrier(metal::mem_flags::mem_threadgroup);
        int best = window.low;
        float least = INFINITY;
        for (int i = 0; i < window.count; ++i) {
            if (!(errors[i] < least * kClearlyLess)) continue;
            least = errors[i];
            best = window.low + i;
        }
        simdgroup_barrier(metal::mem_flags::mem_threadgroup);
        return best;
    }

    float projection_of(threadgroup const float* y, int vectors, int scale_code, int lane16) const {
        const float inverse = inverse_of(scale_code);
        float sum = 0;
        for (int v = 0; v < vectors; ++v) {
            const float magnitude = metal::fabs(y[16 * v + lane16]);
            sum = metal::fma(magnitude, centroid(magnitude * inverse), sum);
        }
        return sum_of_half(sum);
    }

    // Of a group whose stored scale is 0 the codes are those of zero-filled memory.
    void write_codes(threadgroup const float* y, int width, int scale_code, int stored, threadgroup uchar* codes,
                     uint lane) const {
        const float inverse = inverse_of(scale_code);
        for (int i = int(lane); i < width; i += 32) {
            const int magnitude = int(rounded(less_of(metal::fabs(y[i]) * inverse, 127.0f)));
            const int positive = code[magnitude];
            const int negative = bits == kMaxBits ? 256 - positive : (1 << bits) - 1 - positive;
            codes[i] = uchar(stored == 0 ? 0 : y[i] < 0 ? negative : positive);
        }
    }
};

}  // namespace tq
