// Results of warps and of segments into that of a row, always in the order of cells, and the row's end: sink logits, the
// division, the rotation back.
#pragma once

#include "turboquant/cuda/block_sums.cuh"
#include "turboquant/cuda/floats.cuh"
#include "turboquant/cuda/query.cuh"
#include "turboquant/cuda/tile_work.cuh"

namespace tq::cuda {

// One row's part of a partial result, by one warp; element 32 * k + lane in v[k]. Values are 2^-42 of the true sums, the
// sum is 2^64 times the true one (block_sums.cuh).
template <int kHeadDim, int kRows>
struct RowResult {
    using Rotation = WarpRotation<kHeadDim>;
    typename Rotation::Values v = {};
    float max = kNoLogit, sum = 0;

    static constexpr int kMaxima = kRows * kHeadDim, kSums = kMaxima + kRows;  // in a partial result

    // Merges n partial results of other thread blocks, each `stride` floats behind the one before.
    __device__ void merge(const float* partials, int64_t stride, int n, int row) {
        merge_from([&](int64_t at) { return __ldcg(partials + at); }, stride, n, row);
    }
    // Merges those of the warps, in shared memory.
    __device__ void merge_shared(const float* partials, int stride, int row) {
        merge_from([&](int64_t at) { return partials[at]; }, stride, kAttendWarps, row);
    }

    __device__ void store_partial(float* partial, int row) const {
        const int lane = threadIdx.x % 32;
        for (int k = 0; k < Rotation::kRegs; ++k)
            if (Rotation::has(k, lane)) partial[row * kHeadDim + 32 * k + lane] = v[k];
        if (lane == 0) {
            partial[kMaxima + row] = max;
            partial[kSums + row] = sum;
        }
    }

    // The output of a row that is there.
    __device__ void finish(const AttendCall& call, const TileWork& work, const TileRow& row) {
        if (!row.valid) return;
        const int lane = threadIdx.x % 32;
        if (call.in.sinks) add_sink(call.in.sinks[row.head] * kLog2E);
        const float factor = sum == 0 ? 0.0f : __fdiv_rn(0x1p106f, sum);
        for (int k = 0; k < Rotation::kRegs; ++k) v[k] *= factor;
        const Diagonals diagonals(call.value_diagonals, call.n_value_diagonal, kHeadDim);
        Rotation::rotate_inverse(Rotation::inverse_factors(diagonals, work.head_kv, lane), lane, v);
        void* out = row.out(call, work);
        for (int k = 0; k < Rotation::kRegs; ++k)
            if (Rotation::has(k, lane)) store_float(out, call.in.out_type, 32 * k + lane, v[k]);
        constexpr float kLn2 = 0.69314718055994530942f;
        if (call.in.lse && lane == 0)
            *row.lse(call, work) = sum == 0 ? kMinusInfinity : (max + (log2f(sum) - 64)) * kLn2;
    }

  private:
    // load(i): float i of the partial results.
    template <class Load>
    __device__ __forceinline__ void merge_from(Load load, int64_t stride, int n, int row) {
        const int lane = threadIdx.x % 32;
        for (int i = lane; i < n; i += 32) max = fmaxf(max, load(i * stride + kMaxima + row));
        for (int h = 16; h > 0; h /= 2) max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, h));
        for (int first = 0; first < n; first += 32) {
            float factor = 0, part = 0;
            if (first + lane < n) {
                const int64_t at = (first + lane) * stride + row;
                factor = exp2_fast(load(at + kMaxima) - max);
                part = load(at + kSums) * factor;
            }
            const int in_turn = n - first < 32 ? n - first : 32;
#pragma unroll 8
            for (int i = 0; i < in_turn; ++i) {
                const int64_t at = (first + i) * stride + row * kHeadDim + lane;
                const float f = __shfl_sync(kAllLanes, factor, i);
                sum += __shfl_sync(kAllLanes, part, i);
#pragma unroll
                for (int k = 0; k < Rotation::kRegs; ++k)
                    if (Rotation::has(k, lane)) v[k] = __fmaf_rn(load(at + 32 * k), f, v[k]);
            }
        }
    }

    __device__ void add_sink(float logit) {
        const float top = fmaxf(max, logit), factor = exp2_fast(max - top);
        sum = __fmaf_rn(sum, factor, exp2_fast(logit - top + 64));
        for (int k = 0; k < Rotation::kRegs; ++k) v[k] *= factor;
        max = top;
    }
};

}  // namespace tq::cuda
