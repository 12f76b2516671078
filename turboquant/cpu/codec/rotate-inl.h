// The rotation over Ops (cpu/simd/ops_*.h). Written once, compiled per ISA.
#pragma once

#include "turboquant/base/inline.h"
#include "turboquant/cpu/codec/kernels.h"
#include "turboquant/format/scale_search.h"

namespace tq::codec_impl {

template <class Ops>
struct RotateKernels {
    using F = typename Ops::F;

    // Walsh-Hadamard transforms go from the largest distance to the smallest, 1; every pass over memory takes several.

    static TQ_INLINE void add_subtract(F& a, F& b) {
        const F sum = Ops::add(a, b);
        b = Ops::sub(a, b);
        a = sum;
    }

    // Distance h.
    static void transform_pairs(float* x, int run, int h) {
        for (int i = 0; i < run; i += 2 * h) {
            for (int j = i; j < i + h; j += 16) {
                F a = Ops::load(x + j), b = Ops::load(x + j + h);
                add_subtract(a, b);
                Ops::store(x + j, a);
                Ops::store(x + j + h, b);
            }
        }
    }

    // Distances 2 h and h.
    static void transform_quads(float* x, int run, int h) {
        for (int i = 0; i < run; i += 4 * h) {
            for (int j = i; j < i + h; j += 16) {
                F v[4];
                for (int k = 0; k < 4; ++k) v[k] = Ops::load(x + j + k * h);
                transform_vectors(v);
                for (int k = 0; k < 4; ++k) Ops::store(x + j + k * h, v[k]);
            }
        }
    }

    template <int n>
    static TQ_INLINE void transform_vectors(F (&v)[n]) {
        if constexpr (n == 4) {
            add_subtract(v[0], v[2]);
            add_subtract(v[1], v[3]);
            add_subtract(v[2], v[3]);
        }
        if constexpr (n >= 2) add_subtract(v[0], v[1]);
    }

    // All distances in blocks of n vectors.
    template <int n>
    static void transform_blocks(float* x, int run) {
        for (int i = 0; i < run; i += 16 * n) {
            F v[n];
            for (int k = 0; k < n; ++k) v[k] = Ops::load(x + i + 16 * k);
            transform_vectors(v);
            for (int k = 0; k < n; ++k) v[k] = Ops::template butterfly<8>(v[k]);
            for (int k = 0; k < n; ++k) v[k] = Ops::template butterfly<4>(v[k]);
            for (int k = 0; k < n; ++k) v[k] = Ops::template butterfly<2>(v[k]);
            for (int k = 0; k < n; ++k) v[k] = Ops::template butterfly<1>(v[k]);
            for (int k = 0; k < n; ++k) Ops::store(x + i + 16 * k, v[k]);
        }
    }

    // Unnormalized, of `run` floats (a power of two >= 16), in place.
    static void hadamard(float* x, int run) {
        if (run == 16) return transform_blocks<1>(x, run);
        if (run == 32) return transform_blocks<2>(x, run);
        int h = run / 2;
        for (; h >= 128; h /= 4) transform_quads(x, run, h / 2);
        if (h == 64) transform_pairs(x, run, h);
        transform_blocks<4>(x, run);
    }

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

    static TQ_INLINE F finite(F v) {
        return Ops::max(Ops::min(Ops::zero_below(v, kNegligible), Ops::set1(kLargestHalf)), Ops::set1(-kLargestHalf));
    }

    static void multiply(const float* in, const float* factors, float* out, int n) {
        for (int i = 0; i < n; i += 16) Ops::store(out + i, Ops::mul(Ops::load(in + i), Ops::load(factors + i)));
    }

    template <bool any_input>
    static TQ_INLINE void rotate(const Rotation& r, const float* first, const float* second, const float* in,
                                 float* out) {
        const F norm = Ops::set1(r.norm);
        for (int i = 0; i < r.head_dim; i += 16) {
            const F v = any_input ? finite(Ops::load(in + i)) : Ops::load(in + i);
            Ops::store(out + i, Ops::mul(Ops::mul(v, norm), Ops::load(first + i)));
        }
        mix(r, out);
        multiply(out, second, out, r.head_dim);
        mix(r, out);
    }
    static void rotate_row(const Rotation& r, const float* in, float* out) {
        const Rotation::Diagonals d = r.diagonals();
        rotate<true>(r, d.first, d.second, in, out);
    }
    static void rotate_query(const Rotation& r, const float* in, float* out) {
        const Rotation::Diagonals d = r.diagonals();
        rotate<false>(r, d.first_inverse, d.second, in, out);
    }

    static void rotate_inverse(const Rotation& r, const float* in, float* out) {
        const F norm = Ops::set1(r.norm);
        const Rotation::Diagonals d = r.diagonals();
        for (int i = 0; i < r.head_dim; i += 16) Ops::store(out + i, Ops::mul(Ops::load(in + i), norm));
        mix(r, out);
        multiply(out, d.second, out, r.head_dim);
        mix(r, out);
        multiply(out, d.first_inverse, out, r.head_dim);
    }
};

}  // namespace tq::codec_impl
