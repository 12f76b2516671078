// A query row as two int8 digits: n = 256 * high + low of 32639, the row's largest magnitude.
#pragma once

#include "turboquant/cuda/attend_traits.cuh"
#include "turboquant/cuda/floats.cuh"
#include "turboquant/cuda/tile_work.cuh"
#include "turboquant/cuda/warp_rotation.cuh"

namespace tq::cuda {

inline constexpr float kQuerySteps = 127 * 256 + 127;
inline constexpr float kLog2E = 1.44269504088896340736f;

// A warp's row. Loading comes before the block's bulk copies start, since later loads would wait behind them.
template <int kHeadDim>
class QueryRow {
  public:
    using Rotation = WarpRotation<kHeadDim>;

    __device__ QueryRow(const AttendCall& call, const TileWork& work, const TileRow& row)
        : factors_(Rotation::inverse_factors(Diagonals(call.key_diagonals, call.n_key_diagonal, kHeadDim), work.head_kv,
                                             lane_)) {
        const float sign = call.shape.scale < 0 ? -1.0f : 1.0f;
        for (int k = 0; k < Rotation::kRegs; ++k) {
            const int i = 32 * k + lane_;
            const bool there = row.valid && Rotation::has(k, lane_);
            value_[k] = there ? sign * load_float(row.query(call, work), call.in.q_type, i) : 0.0f;
        }
    }

    // digits: [2: high, low][n_rows][head_dim], the row's share; factor: what turns a sum of products of digits and
    // levels, times the float of a key scale's code << 20 (format/scale.h: 2^-106 of the scale), into a logit: in base
    // 2, with a softcap in units of it.
    __device__ void store(const AttendCall& call, int row, int n_rows, int8_t* digits, float* factor) {
        Rotation::rotate_query(factors_, lane_, value_);
        float top = 0;
        for (int k = 0; k < Rotation::kRegs; ++k)
            if (Rotation::has(k, lane_)) top = fmaxf(top, fabsf(value_[k]));
        for (int h = 16; h > 0; h /= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, h));
        const float inverse = top > 0x1p-100f ? __fdiv_rn(kQuerySteps, top) : 0.0f;
        for (int k = 0; k < Rotation::kRegs; ++k) {
            if (!Rotation::has(k, lane_)) continue;
            const int n16 = __float2int_rn(value_[k] * inverse), high = (n16 + 128) >> 8;
            digits[row * kHeadDim + 32 * k + lane_] = static_cast<int8_t>(high);
            digits[(n_rows + row) * kHeadDim + 32 * k + lane_] = static_cast<int8_t>(n16 - 256 * high);
        }
        const float unit = call.shape.softcap > 0 ? __fdiv_rn(1.0f, call.shape.softcap) : kLog2E;
        // NaN where the query has one, or an infinity.
        float sum = 0;
        for (int k = 0; k < Rotation::kRegs; ++k) sum += value_[k] * 0.0f;
        for (int h = 16; h > 0; h /= 2) sum += __shfl_xor_sync(kAllLanes, sum, h);
        if (lane_ == 0) *factor = __fdiv_rn(top, kQuerySteps) * fabsf(call.shape.scale) * unit * 0x1p106f + sum;
    }

  private:
    const int lane_ = threadIdx.x % 32;
    const typename Rotation::Factors factors_;
    typename Rotation::Values value_;
};

}  // namespace tq::cuda
