// The rotation (format/rotation.h) of a vector that a SIMD group holds: element 32 * k + lane in register k of the
// lane, 0 behind the last.
#pragma once

#include "turboquant/metal/numerics.h"
#include "turboquant/metal/params.h"

namespace tq {

constexpr int registers_of(int head_dim) {
    return (head_dim + 31) / 32;
}

template <int head_dim>
struct Rotation {
    static constexpr int n() { return registers_of(head_dim); }
    static constexpr int run() { return head_dim & -head_dim; }
    static bool has(int k, uint lane) { return 32 * k + int(lane) < head_dim; }

    // Unnormalized Walsh-Hadamard transforms of the runs, from the largest distance to the smallest.
    static void hadamard(thread float (&x)[registers_of(head_dim)], uint lane) {
#pragma unroll
        for (int h = run() / 2; h >= 32; h /= 2) {
#pragma unroll
            for (int k = 0; k < n(); ++k) {
                if ((k & (h / 32)) != 0) continue;
                const float a = x[k], b = x[k + h / 32];
                x[k] = a + b;
                x[k + h / 32] = a - b;
            }
        }
#pragma unroll
        for (int h = run() / 2 < 16 ? run() / 2 : 16; h >= 1; h /= 2) {
#pragma unroll
            for (int k = 0; k < n(); ++k) {
                const float other = metal::simd_shuffle_xor(x[k], ushort(h));
                x[k] = (lane & uint(h)) != 0 ? other - x[k] : x[k] + other;
            }
        }
    }

    // x <- (I - 2/m J) x across the m runs.
    static void mix_runs(thread float (&x)[registers_of(head_dim)], uint lane) {
        constexpr int m = head_dim / run();
        if (m == 1) return;
        constexpr float factor = -2.0f / float(m);
        if (run() == 16) {
            float sum = 0;
#pragma unroll
            for (int k = 0; k < n(); ++k) {
                const float other = metal::simd_shuffle_xor(x[k], ushort(16));
                const float low = lane < 16 ? x[k] : other, high = lane < 16 ? other : x[k];
                sum = k == 0 ? low : sum + low;
                if (2 * k + 1 < m) sum += high;
            }
#pragma unroll
            for (int k = 0; k < n(); ++k) x[k] = has(k, lane) ? metal::fma(factor, sum, x[k]) : 0.0f;
            return;
        }
        constexpr int width = run() / 32 > 0 ? run() / 32 : 1;  // registers of a run
#pragma unroll
        for (int i = 0; i < width; ++i) {
            float sum = x[i];
#pragma unroll
            for (int j = 1; j < m; ++j) sum += x[j * width + i];
#pragma unroll
            for (int j = 0; j < m; ++j) x[j * width + i] = metal::fma(factor, sum, x[j * width + i]);
        }
    }

    static void mix(thread float (&x)[registers_of(head_dim)], uint lane) {
        hadamard(x, lane);
        mix_runs(x, lane);
    }

    static void multiply(thread float (&x)[registers_of(head_dim)], device const float* diagonals, int row, uint lane) {
#pragma unroll
        for (int k = 0; k < n(); ++k)
            if (has(k, lane)) x[k] *= diagonals[row * head_dim + 32 * k + int(lane)];
    }

    // x <- R D x, of keys and values with first = kRotationFirst; R D^-1 x, of queries, with kRotationFirstInverse.
    static void apply(thread float (&x)[registers_of(head_dim)], device const float* diagonals, int first, uint lane) {
        constexpr float norm = 1.0f / float(run());
#pragma unroll
        for (int k = 0; k < n(); ++k) x[k] *= norm;
        multiply(x, diagonals, first, lane);
        mix(x, lane);
        multiply(x, diagonals, kRotationSecond, lane);
        mix(x, lane);
    }

    // x <- D^-1 R^T x
    static void invert(thread float (&x)[registers_of(head_dim)], device const float* diagonals, uint lane) {
        constexpr float norm = 1.0f / float(run());
#pragma unroll
        for (int k = 0; k < n(); ++k) x[k] *= norm;
        mix(x, lane);
        multiply(x, diagonals, kRotationSecond, lane);
        mix(x, lane);
        multiply(x, diagonals, kRotationFirstInverse, lane);
    }
};

}  // namespace tq
