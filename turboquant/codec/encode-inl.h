// The codec's inner loops over Ops (simd/ops_*.h): rotation and the scale search. Written once, compiled per ISA.
#pragma once

#include <cmath>
#include <cstring>

#include "turboquant/base/inline.h"
#include "turboquant/codec/kernels.h"
#include "turboquant/codec/scale.h"

namespace tq::codec_impl {

inline constexpr float kLargestHalf = 65504.0f;

// The window of candidate scales around the one that gives the group's rms the codebook's sigma.
inline constexpr float kWindowLow = 0.65f;
inline constexpr float kWindowHigh = 1.4f;
// It is widened to these multiples of the scale that clips nothing. The decoded values of a scale whose largest centroid
// is >= kReachCentroid have that scale in their window: 1.1 * 110 / 127 > 15/16, the largest ratio of neighbours.
inline constexpr float kReachLow = 0.85f;
inline constexpr float kReachHigh = 1.1f;
inline constexpr float kReachCentroid = 110.0f;
// Of scales that fit equally well but for rounding, the smallest wins.
inline constexpr float kClearlyLess = 1.0f - 0x1p-10f;
inline constexpr float kNegligibleError = 0x1p-36f;

template <class Ops>
struct Kernels {
    using F = typename Ops::F;
    using I = typename Ops::I;

    // Unnormalized Walsh-Hadamard transform of `run` floats (a power of two >= 16), in place.
    static void hadamard(float* x, int run) {
        for (int h = run / 2; h >= 16; h /= 2) {
            for (int i = 0; i < run; i += 2 * h) {
                for (int j = i; j < i + h; j += 16) {
                    const F a = Ops::load(x + j), b = Ops::load(x + j + h);
                    Ops::store(x + j, Ops::add(a, b));
                    Ops::store(x + j + h, Ops::sub(a, b));
                }
            }
        }
        for (int i = 0; i < run; i += 16) {
            F v = Ops::load(x + i);
            v = butterfly<8>(v);
            v = butterfly<4>(v);
            v = butterfly<2>(v);
            v = butterfly<1>(v);
            Ops::store(x + i, v);
        }
    }

    // lane i: x[i] + x[i^h] where bit h of i is clear, x[i^h] - x[i] where it is set.
    template <int h>
    static TQ_INLINE F butterfly(F v) { return Ops::add(Ops::template swap_lanes<h>(v), Ops::template negate_lanes<h>(v)); }

    // x <- (I - 2/m J) x across the m runs.
    static void mix_runs(float* x, int run, int m) {
        if (m == 1) return;
        const F factor = Ops::set1(-2.0f / static_cast<float>(m));
        for (int i = 0; i < run; i += 16) {
            F sum = Ops::load(x + i);
            for (int j = 1; j < m; ++j) sum = Ops::add(sum, Ops::load(x + j * run + i));
            for (int j = 0; j < m; ++j) Ops::store(x + j * run + i, Ops::fma(factor, sum, Ops::load(x + j * run + i)));
        }
    }

    // x <- M x
    static void mix(const Rotation& r, float* x) {
        const int m = r.head_dim / r.run;
        for (int j = 0; j < m; ++j) hadamard(x + j * r.run, r.run);
        mix_runs(x, r.run, m);
    }

    static void multiply(const float* in, const float* factors, float scale, float* out, int n) {
        const F s = Ops::set1(scale);
        for (int i = 0; i < n; i += 16) Ops::store(out + i, Ops::mul(Ops::mul(Ops::load(in + i), s), Ops::load(factors + i)));
    }

    static void rotate(const Rotation& r, const float* in, float* out) {
        multiply(in, r.signs[0].data(), r.norm, out, r.head_dim);
        mix(r, out);
        multiply(out, r.signs[1].data(), 1.0f, out, r.head_dim);
        mix(r, out);
    }

    static void rotate_inverse(const Rotation& r, const float* in, float* out) {
        const F norm = Ops::set1(r.norm);
        for (int i = 0; i < r.head_dim; i += 16) Ops::store(out + i, Ops::mul(Ops::load(in + i), norm));
        mix(r, out);
        multiply(out, r.signs[1].data(), 1.0f, out, r.head_dim);
        mix(r, out);
        multiply(out, r.signs[0].data(), 1.0f, out, r.head_dim);
    }

    static void sanitize(const float* in, float* out, int n) {
        const F high = Ops::set1(kLargestHalf), low = Ops::set1(-kLargestHalf);
        for (int i = 0; i < n; i += 16) {
            Ops::store(out + i, Ops::max(Ops::min(Ops::nan_to_zero(Ops::load(in + i)), high), low));
        }
    }

    // |value| / scale rounded, at most 127.
    static TQ_INLINE I magnitude(F value, F inverse_scale) {
        return Ops::round_to_int(Ops::min(Ops::mul(Ops::abs(value), inverse_scale), Ops::set1(kCentroidMax)));
    }

    static TQ_INLINE F centroid_magnitude(const Codebook& book, F value, F inverse_scale) {
        return Ops::lookup_float(book.nearest.data(), book.nearest_byte.data(), magnitude(value, inverse_scale));
    }

    struct Fit {
        float squared_error;   // in units of the scale
        float centroid_energy; // sum of squared centroids
    };

    static Fit fit(const Codebook& book, const float* y, int n, float scale) {
        const F inverse = Ops::set1(1.0f / scale);
        F error = Ops::set1(0), energy = Ops::set1(0);
        for (int i = 0; i < n; i += 16) {
            const F value = Ops::load(y + i);
            const F c = centroid_magnitude(book, value, inverse);
            const F e = Ops::sub(Ops::mul(Ops::abs(value), inverse), c);
            error = Ops::fma(e, e, error);
            energy = Ops::fma(c, c, energy);
        }
        return {Ops::reduce_add(error), Ops::reduce_add(energy)};
    }

    static uint8_t encode_group(const Codebook& book, bool unbiased, const float* y, int n, uint8_t* codes) {
        F sum = Ops::set1(0), top = Ops::set1(0);
        for (int i = 0; i < n; i += 16) {
            const F v = Ops::load(y + i);
            sum = Ops::fma(v, v, sum);
            top = Ops::max(top, Ops::abs(v));
        }
        const float energy = Ops::reduce_add(sum);
        const float unit = std::sqrt(energy / static_cast<float>(n)) / book.sigma_units;
        const float top_value = Ops::reduce_max(top);
        const float reach = top_value / kCentroidMax;   // the scale at which no value is clipped
        const int low = scale_code_floor(std::fmin(kWindowLow * unit, kReachLow * reach));
        const int high = scale_code_ceil(std::fmax(kWindowHigh * unit, kReachHigh * reach));
        int stored = 0;
        if (scale_code_nearest(reach) > 0) {
            const int best = search_scale(book, y, n, Peak{energy, top_value}, low > 0 ? low : 1, high);
            stored = unbiased ? unbiased_scale(book, y, n, energy, best) : best;
            write_codes(book, y, n, best, codes);
        }
        if (stored == 0) std::memset(codes, 0, n);   // as zero-filled memory, not the signs of rounding errors
        return static_cast<uint8_t>(stored);
    }

    static int unbiased_scale(const Codebook& book, const float* y, int n, float energy, int best) {
        const F inverse = Ops::set1(1.0f / scale_from_code(static_cast<uint8_t>(best)));
        F projection = Ops::set1(0);   // <y, c>
        for (int i = 0; i < n; i += 16) {
            const F value = Ops::load(y + i);
            projection = Ops::fma(Ops::abs(value), centroid_magnitude(book, value, inverse), projection);
        }
        return scale_code_nearest(energy / Ops::reduce_add(projection));
    }

    struct Peak {
        float energy;   // sum of squares
        float top;      // largest magnitude
    };

    // A scale is admissible if the encoder, given the decoded values, would look at it again: then encoding what was
    // decoded gives the same bytes. Scales that clip always are (the largest centroid is 127), and the window has one.
    static int search_scale(const Codebook& book, const float* y, int n, const Peak& peak, int low, int high) {
        int best = low;
        float best_error = INFINITY;
        const float sigma_energy = book.sigma_units * book.sigma_units * static_cast<float>(n);
        for (int code = low; code <= high; ++code) {
            const float scale = scale_from_code(static_cast<uint8_t>(code));
            const Fit f = fit(book, y, n, scale);
            const bool admissible = f.centroid_energy * (kWindowHigh * kWindowHigh) >= sigma_energy ||
                                    largest_centroid(book, peak.top, scale) >= kReachCentroid;
            const float error = std::fmax(f.squared_error * scale * scale, peak.energy * kNegligibleError);
            if (admissible && error < best_error * kClearlyLess) {
                best_error = error;
                best = code;
            }
        }
        return best;
    }

    static float largest_centroid(const Codebook& book, float top, float scale) {
        return Ops::reduce_max(centroid_magnitude(book, Ops::set1(top), Ops::set1(1.0f / scale)));
    }

    static void write_codes(const Codebook& book, const float* y, int n, int scale_code, uint8_t* codes) {
        const float scale = scale_from_code(static_cast<uint8_t>(scale_code));
        const F inverse = Ops::set1(1.0f / scale);
        alignas(64) int32_t magnitudes[64];
        for (int i = 0; i < n; i += 16) Ops::store_int(magnitudes + i, magnitude(Ops::load(y + i), inverse));
        for (int i = 0; i < n; ++i) {
            codes[i] = y[i] < 0 ? book.code_negative[magnitudes[i]] : book.code_positive[magnitudes[i]];
        }
    }
};

template <class Ops>
constexpr CodecKernels make_kernels() {
    using K = Kernels<Ops>;
    return {K::rotate, K::rotate_inverse, K::sanitize, K::encode_group};
}

}  // namespace tq::codec_impl
