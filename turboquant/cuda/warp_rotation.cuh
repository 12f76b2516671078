// The rotation (format/rotation.h) of one head by one warp, in registers: element 32 * k + lane is v[k] of the lane.
// The same bits as cpu/codec/rotate-inl.h: the same order of sums.
#pragma once

#include "turboquant/format/coding.h"

namespace tq::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// Diagonals of all heads on the device; `stride` is head_dim, or 0 where all heads have the same.
struct Diagonals {
    const float *first, *first_inverse, *second;
    int stride;

    // all: [3][n], as Codec has them.
    __device__ Diagonals(const float* all, int n, int head_dim)
        : first(all), first_inverse(all + n), second(all + 2 * n), stride(n == head_dim ? 0 : head_dim) {}
};

template <int kHeadDim>
class WarpRotation {
  public:
    static constexpr int kRegs = (kHeadDim + 31) / 32;
    using Values = float[kRegs];

    // The lane's part of a head's diagonals, loaded beforehand.
    struct Factors {
        Values before, between;

        __device__ Factors(const float* first, const float* second, int lane) {
            for (int k = 0; k < kRegs; ++k) {
                before[k] = has(k, lane) ? first[32 * k + lane] : 0.0f;
                between[k] = has(k, lane) ? second[32 * k + lane] : 0.0f;
            }
        }
    };
    static __device__ Factors row_factors(const Diagonals& d, int head, int lane) {
        return Factors(d.first + head * d.stride, d.second + head * d.stride, lane);
    }
    // Of queries and of the inverse rotation.
    static __device__ Factors inverse_factors(const Diagonals& d, int head, int lane) {
        return Factors(d.first_inverse + head * d.stride, d.second + head * d.stride, lane);
    }

    // y = R D x of a row of keys or values, whatever it holds.
    static __device__ void rotate_row(const Factors& f, int lane, Values& v) {
        for (int k = 0; k < kRegs; ++k) v[k] = finite(v[k]);
        rotate(f, lane, v);
    }
    // y = R D^-1 x
    static __device__ void rotate_query(const Factors& f, int lane, Values& v) { rotate(f, lane, v); }
    // x = D^-1 R^T y
    static __device__ void rotate_inverse(const Factors& f, int lane, Values& v) {
        for (int k = 0; k < kRegs; ++k) v[k] *= kNorm;
        mix(lane, v);
        multiply(f.between, v);
        mix(lane, v);
        multiply(f.before, v);
    }

    static __device__ bool has(int k, int lane) { return kHeadDim % 32 == 0 || 32 * k + lane < kHeadDim; }

  private:
    static constexpr int kRun = kHeadDim & -kHeadDim;
    static constexpr int kRuns = kHeadDim / kRun;
    static constexpr float kNorm = 1.0f / kRun;

    static __device__ float finite(float x) {
        const float kept = fabsf(x) >= 0x1p-32f ? x : 0.0f;  // 0 for NaN, too
        return fmaxf(fminf(kept, 65504.0f), -65504.0f);
    }

    static __device__ void multiply(const Values& factors, Values& v) {
        for (int k = 0; k < kRegs; ++k) v[k] *= factors[k];
    }

    static __device__ void rotate(const Factors& f, int lane, Values& v) {
        for (int k = 0; k < kRegs; ++k) v[k] *= kNorm;
        multiply(f.before, v);
        mix(lane, v);
        multiply(f.between, v);
        mix(lane, v);
    }

    static __device__ void mix(int lane, Values& v) {
        hadamard(lane, v);
        if constexpr (kRuns > 1) mix_runs(lane, v);
    }

    // From the largest distance to the smallest.
    static __device__ void hadamard(int lane, Values& v) {
#pragma unroll
        for (int h = kRun / 2; h >= 32; h /= 2) {
#pragma unroll
            for (int k = 0; k < kRegs; ++k) {
                if (k & (h / 32)) continue;
                const float a = v[k], b = v[k + h / 32];
                v[k] = a + b;
                v[k + h / 32] = a - b;
            }
        }
#pragma unroll
        for (int h = kRun / 2 < 16 ? kRun / 2 : 16; h >= 1; h /= 2) {
#pragma unroll
            for (int k = 0; k < kRegs; ++k) {
                const float other = __shfl_xor_sync(kAllLanes, v[k], h);
                v[k] = lane & h ? other - v[k] : v[k] + other;
            }
        }
    }

    // x <- (I - 2/m J) x across the m runs.
    static __device__ void mix_runs(int lane, Values& v) {
        constexpr float kFactor = -2.0f / kRuns;
        if constexpr (kRun >= 32) {
            constexpr int kRegsOfRun = kRun / 32;
#pragma unroll
            for (int c = 0; c < kRegsOfRun; ++c) {
                float sum = v[c];
#pragma unroll
                for (int j = 1; j < kRuns; ++j) sum += v[j * kRegsOfRun + c];
#pragma unroll
                for (int j = 0; j < kRuns; ++j) v[j * kRegsOfRun + c] = __fmaf_rn(kFactor, sum, v[j * kRegsOfRun + c]);
            }
        } else {
            static_assert(kRun == 16);
            float sum = __shfl_sync(kAllLanes, v[0], lane & 15);
#pragma unroll
            for (int j = 1; j < kRuns; ++j) sum += __shfl_sync(kAllLanes, v[j / 2], 16 * (j % 2) + (lane & 15));
#pragma unroll
            for (int k = 0; k < kRegs; ++k) v[k] = __fmaf_rn(kFactor, sum, v[k]);
        }
    }
};

}  // namespace tq::cuda
