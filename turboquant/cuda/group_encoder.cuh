// The scale search and the codes of one group by half a warp: cpu/codec/encode-inl.h, lane for lane, with the same bits.
#pragma once

#include "turboquant/cuda/codec.h"
#include "turboquant/cuda/warp_rotation.cuh"
#include "turboquant/format/scale.h"

namespace tq::cuda {

class GroupEncoder {
  public:
    // tables: in shared memory. unbiased: as keys at 2 bits are scaled.
    __device__ GroupEncoder(const CodecTables& tables, int bits, bool unbiased)
        : tables_(tables), bits_(bits), unbiased_(unbiased) {}

    // y: 16 * n_vectors values, codes: as many bytes. Both halves of a warp call it together. Returns the scale's code,
    // in all lanes of the half.
    __device__ int encode(const float* y, int n_vectors, uint8_t* codes) {
        lane_ = threadIdx.x & 15;
        n_vectors_ = n_vectors;
        for (int v = 0; v < kMaxVectors; ++v) {
            value_[v] = v < n_vectors ? y[16 * v + lane_] : 0;
            magnitude_[v] = fabsf(value_[v]);
        }
        measure();
        make_window();
        const int best = choose_scale();
        const int unbiased = unbiased_scale(larger(best, 1));
        const int stored = best == 0 ? 0 : unbiased_ ? unbiased : best;
        write_codes(best, stored, codes);
        return stored;
    }

  private:
    static constexpr int kMaxVectors = 4;
    static constexpr int kHighest = 127;
    static constexpr float kWindowLow = 0.65f, kWindowHigh = 1.4f, kReachLow = 0.85f, kReachHigh = 1.1f;
    static constexpr int kReachCentroid = 110, kMaxCandidates = 32;
    static constexpr float kClearlyLess = 1.0f - 0x1p-10f, kNegligibleError = 0x1p-36f;

    // Over the 16 lanes, as Ops::reduce_add adds them up.
    static __device__ float add_lanes(float x) {
        for (int h = 8; h > 0; h /= 2) x += __shfl_xor_sync(kAllLanes, x, h);
        return x;
    }
    static __device__ float inverse_of(int code) { return __fdiv_rn(1.0f, scale_from_code(static_cast<uint8_t>(code))); }

    __device__ void measure() {
        float sum = 0;
        top_ = 0;
        for (int v = 0; v < kMaxVectors; ++v) {
            if (v < n_vectors_) sum = __fmaf_rn(value_[v], value_[v], sum);
            top_ = fmaxf(top_, magnitude_[v]);
        }
        energy_ = add_lanes(sum);
        for (int h = 8; h > 0; h /= 2) top_ = fmaxf(top_, __shfl_xor_sync(kAllLanes, top_, h));
    }

    __device__ void make_window() {
        const float unit = __fdiv_rn(__fsqrt_rn(__fdiv_rn(energy_, static_cast<float>(16 * n_vectors_))), tables_.sigma_units);
        const float reach = __fdiv_rn(top_, static_cast<float>(kHighest));
        low_ = 0;
        count_ = 0;
        if (reach <= scale_from_code(1) / 2) return;
        low_ = larger(1, scale_code_floor(smaller(kWindowLow * unit, kReachLow * reach)));
        const int high = scale_code_ceil(larger(kWindowHigh * unit, kReachHigh * reach));
        count_ = smaller(high - low_ + 1, kMaxCandidates);
    }

    __device__ int rounded(float scaled) const { return __float2int_rn(fminf(scaled, static_cast<float>(kHighest))); }
    __device__ float level(float scaled) const { return static_cast<float>(tables_.nearest[rounded(scaled)]); }

    // The squared error of a scale, and whether it is admissible.
    __device__ float error_of(int code, bool& admissible) const {
        const float inverse = inverse_of(code), scale = scale_from_code(static_cast<uint8_t>(code));
        float sum = 0, energy = 0;
        for (int v = 0; v < kMaxVectors; ++v) {
            if (v >= n_vectors_) break;
            const float scaled = magnitude_[v] * inverse, nearest = level(scaled), error = scaled - nearest;
            sum = __fmaf_rn(error, error, sum);
            energy = __fmaf_rn(nearest, nearest, energy);
        }
        const float error = add_lanes(sum) * scale * scale;
        const float sigma_energy = tables_.sigma_units * tables_.sigma_units * static_cast<float>(16 * n_vectors_);
        admissible = add_lanes(energy) * (kWindowHigh * kWindowHigh) >= sigma_energy;
        admissible = admissible || level(top_ * inverse) >= kReachCentroid;
        return fmaxf(error, energy_ * kNegligibleError);
    }

    // The least error wins, of equals the smallest scale; 0 without candidates.
    __device__ int choose_scale() const {
        int best = low_;
        float best_error = __int_as_float(0x7f800000);
        const int rounds = larger(count_, __shfl_xor_sync(kAllLanes, count_, 16));
        for (int i = 0; i < rounds; ++i) {
            bool admissible;
            const int code = smaller(larger(low_ + i, 1), kMaxScaleCode);
            const float error = error_of(code, admissible);
            if (i < count_ && error < best_error * kClearlyLess && admissible) {
                best_error = error;
                best = code;
            }
        }
        return best;
    }

    __device__ int unbiased_scale(int best) const {
        const float inverse = inverse_of(best);
        float projection = 0;
        for (int v = 0; v < kMaxVectors; ++v) {
            if (v >= n_vectors_) break;
            projection = __fmaf_rn(magnitude_[v], level(magnitude_[v] * inverse), projection);
        }
        return scale_code_nearest(__fdiv_rn(energy_, add_lanes(projection)));
    }

    __device__ void write_codes(int best, int stored, uint8_t* codes) const {
        const float inverse = inverse_of(larger(best, 1));
        const uint8_t flip = static_cast<uint8_t>((1 << bits_) - 1);
        for (int v = 0; v < kMaxVectors; ++v) {
            if (v >= n_vectors_) break;
            const int magnitude = rounded(magnitude_[v] * inverse);
            uint8_t code = tables_.code[magnitude];
            if (value_[v] < 0) code = bits_ == kMaxBits ? static_cast<uint8_t>(128 - magnitude) : code ^ flip;
            codes[16 * v + lane_] = stored == 0 ? 0 : code;
        }
    }

    const CodecTables& tables_;
    int bits_;
    bool unbiased_;
    int lane_, n_vectors_;
    float value_[kMaxVectors], magnitude_[kMaxVectors];
    float energy_, top_;
    int low_, count_;  // candidates: the codes low_, low_ + 1, ...
};

}  // namespace tq::cuda
