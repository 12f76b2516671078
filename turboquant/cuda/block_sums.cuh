// A warp's work on a block of 64 cells: dot products with keys, the softmax, the weighted sum of values.
//
// Lane = 4 * r + t. Four query rows; a product of 16 cells has the high digits of rows 0-3 in columns 0-3 of the matrix
// and the low digits in columns 4-7. After one exchange with lane ^ 2 a lane has the logits of rows 2 * (t % 2) and
// that + 1, of cells 16 * tile + 8 * (t / 2) + r: all lanes have work in the softmax. Sums of values have the high
// digits of weights in lanes with t < 2, the low ones in the others, and dims where keys have cells.
#pragma once

#include "turboquant/cuda/attend_traits.cuh"
#include "turboquant/cuda/levels.cuh"
#include "turboquant/cuda/warp_rotation.cuh"

namespace tq::cuda {

inline constexpr int kTiles = kBlockCells / 16;
inline constexpr float kNoLogit = -1e30f;  // the maximum of no logits, below any logit and finite
inline constexpr float kMinusInfinity = -__builtin_huge_valf();
inline constexpr float kWeightSteps = 65530;  // of the block's largest weight, so that rounding stays below 2^16

// The float of a scale's code, 2^-106 of the scale: byte i of the word.
__device__ __forceinline__ float small_scale(uint32_t word, int byte) {
    const int shift = 20 - 8 * byte;
    return __uint_as_float((shift >= 0 ? word << shift : word >> -shift) & 0x0ff00000);
}

// Over the 16 lanes that have the same rows.
__device__ __forceinline__ float max_of_cells(float x) {
#pragma unroll
    for (int h = 2; h <= 16; h *= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, h));
    return x;
}
__device__ __forceinline__ float sum_of_cells(float x) {
#pragma unroll
    for (int h = 2; h <= 16; h *= 2) x += __shfl_xor_sync(kAllLanes, x, h);
    return x;
}

template <class Traits>
class KeyProducts {
  public:
    static constexpr int kBits = Traits::kKeyBits, kUnits = Traits::kUnits;

    // digits: [8 columns][head_dim] in shared memory; head_kv: where the head begins in its first group.
    __device__ KeyProducts(const int8_t* digits, int head_kv, const Multipliers& by)
        : by_(by), group_offset_(head_kv * Traits::kHeadDim % group_dims(Side::kKey)) {
#pragma unroll
        for (int unit = 0; unit < kUnits; ++unit)
            query_[unit] = *reinterpret_cast<const uint32_t*>(digits + r_ * Traits::kHeadDim + 16 * unit + 4 * t_);
    }

    // sums[tile]: cells r and 8 + r of the tile, two columns each, times small scales.
    __device__ void run(const uint8_t* keys, float (&sums)[kTiles][4]) const {
#pragma unroll
        for (int i = 0; i < 4 * kTiles; ++i) sums[i / 4][i % 4] = 0;
        if constexpr (Traits::kWholeKeyGroups) {
            static_for<0, kUnits / 2>([&]<int kGroup>() { add_group<kGroup>(keys, sums); });
        } else {
            static_for<0, kUnits>([&]<int kUnit>() { add_unit<kUnit>(keys, sums); });
        }
    }

  private:
    // 32 dims, two units.
    template <int kGroup>
    __device__ __forceinline__ void add_group(const uint8_t* keys, float (&sums)[kTiles][4]) const {
        uint32_t words[2 * kBits];
        load_words<kUnits * kBits, 2 * kGroup * kBits>(keys, lane_, words);
        const uint2 scales = scales_of(keys, kGroup);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            Eight p0, n0, p1, n1;
            SlotLevels<kBits>::decode(words, tile, by_, p0, n0);
            SlotLevels<kBits>::decode(words + kBits, tile, by_, p1, n1);
            LevelSums<kBits> product;
            mma_signed(product.positive, p0.low, p0.high, p1.low, p1.high, query_[2 * kGroup], query_[2 * kGroup + 1]);
            if constexpr (!SlotLevels<kBits>::kSigned)
                mma_signed(product.negative, n0.low, n0.high, n1.low, n1.high, query_[2 * kGroup],
                           query_[2 * kGroup + 1]);
            add(product, scales, tile, sums[tile]);
        }
    }
    // 16 dims.
    template <int kUnit>
    __device__ __forceinline__ void add_unit(const uint8_t* keys, float (&sums)[kTiles][4]) const {
        uint32_t words[kBits];
        load_words<kUnits * kBits, kUnit * kBits>(keys, lane_, words);
        const uint2 scales = scales_of(keys, (group_offset_ + 16 * kUnit) / group_dims(Side::kKey));
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            Eight p, n;
            SlotLevels<kBits>::decode(words, tile, by_, p, n);
            LevelSums<kBits> product;
            mma_half(product.positive, p.low, p.high, query_[kUnit]);
            if constexpr (!SlotLevels<kBits>::kSigned) mma_half(product.negative, n.low, n.high, query_[kUnit]);
            add(product, scales, tile, sums[tile]);
        }
    }

    // Of the lane's cells: two bytes a tile.
    __device__ uint2 scales_of(const uint8_t* keys, int group) const {
        return *reinterpret_cast<const uint2*>(keys + Traits::kKeyCodes + group * kBlockCells + 8 * r_);
    }
    static __device__ __forceinline__ void add(const LevelSums<kBits>& product, const uint2& scales, int tile,
                                               float (&sums)[4]) {
        const uint32_t word = tile < 2 ? scales.x : scales.y;
        const float first = small_scale(word, tile % 2 * 2), second = small_scale(word, tile % 2 * 2 + 1);
        sums[0] = __fmaf_rn(product.at(0), first, sums[0]);
        sums[1] = __fmaf_rn(product.at(1), first, sums[1]);
        sums[2] = __fmaf_rn(product.at(2), second, sums[2]);
        sums[3] = __fmaf_rn(product.at(3), second, sums[3]);
    }

    const int lane_ = threadIdx.x % 32, r_ = lane_ / 4, t_ = lane_ % 4;
    const Multipliers by_;
    int group_offset_;
    uint32_t query_[kUnits];
};

// What a row's softmax has of the cells so far; a lane's two rows.
struct Softmax {
    float max[2] = {kNoLogit, kNoLogit};
    float sum[2] = {0, 0};  // of 2^64 times the weights, over this lane's cells
};

// Combines the digits' sums: a lane's logits of its two rows, [tile][row].
__device__ __forceinline__ void logits_of(const float (&sums)[kTiles][4], const float (&factor)[2],
                                          float (&logits)[kTiles][2]) {
    const bool high = threadIdx.x % 4 < 2;  // the lane has high digits, and takes cells r
    const float mine = high ? 256.0f : 1.0f, others = high ? 1.0f : 256.0f;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const float other = __shfl_xor_sync(kAllLanes, high ? sums[tile][2 + j] : sums[tile][j], 2);
            const float own = high ? sums[tile][j] : sums[tile][2 + j];
            logits[tile][j] = __fmaf_rn(other, others, own * mine) * factor[j];
        }
    }
}

template <class Traits>
class ValueSums {
  public:
    static constexpr int kBits = Traits::kValueBits, kUnits = Traits::kUnits;

    __device__ ValueSums(int head_kv, const Multipliers& by)
        : by_(by), group_offset_(head_kv * Traits::kHeadDim % group_dims(Side::kValue)) {}

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < 4 * kUnits; ++i) out_[i / 4][i % 4] = 0;
    }

    __device__ void rescale(const float (&factor)[2]) {
#pragma unroll
        for (int i = 0; i < 4 * kUnits; ++i) out_[i / 4][i % 4] *= factor[i % 2];
    }

    // weights: 2^64 exp(logit - max), of the lane's cells and rows.
    __device__ void add(const uint8_t* values, const float (&weights)[kTiles][2]) {
        Digits digits;
        if constexpr (Traits::kWholeValueGroups) {
            static_for<0, kUnits / 4>([&]<int kGroup>() {
                digits = digits_of(values, kGroup, weights);
                add_pair<4 * kGroup>(values, digits);
                add_pair<4 * kGroup + 2>(values, digits);
            });
        } else {
            static_for<0, kUnits>([&]<int kUnit>() {
                const int group = (group_offset_ + 16 * kUnit) / group_dims(Side::kValue);
                if (kUnit == 0 || (group_offset_ + 16 * kUnit) % group_dims(Side::kValue) == 0)
                    digits = digits_of(values, group, weights);
                uint32_t words[kBits];
                load_words<kUnits * kBits, kUnit * kBits>(values, lane_, words);
                add_unit(words, digits, out_[kUnit]);
            });
        }
    }

    // The sums of both digits: rows 2 t and 2 t + 1 of lanes with t < 2. Calls fn(row, dim, value).
    template <class Fn>
    __device__ void for_rows(Fn fn) const {
#pragma unroll
        for (int unit = 0; unit < kUnits; ++unit) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float both = out_[unit][i] + __shfl_xor_sync(kAllLanes, out_[unit][i], 2);
                if (t_ < 2) fn(2 * t_ + i % 2, 16 * unit + 8 * (i / 2) + r_, both);
            }
        }
    }

  private:
    // Weights of 64 cells as matrix B, two steps of 32 cells, and what a sum of products with them is to be multiplied
    // by.
    struct Digits {
        uint32_t b[2][2];
        float factor[2];
    };

    __device__ __forceinline__ Digits digits_of(const uint8_t* values, int group,
                                                const float (&weights)[kTiles][2]) const {
        const uint32_t scales = *reinterpret_cast<const uint32_t*>(values + Traits::kValueCodes + group * kBlockCells +
                                                                   8 * r_ + 4 * (t_ / 2));
        float w[kTiles][2], inverse[2];
        Digits digits;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            float top = 0x1p-100f;
#pragma unroll
            for (int tile = 0; tile < kTiles; ++tile) {
                w[tile][j] = weights[tile][j] * small_scale(scales, tile);
                top = fmaxf(top, w[tile][j]);
            }
            top = max_of_cells(top);
            inverse[j] = __fdividef(kWeightSteps, top);
            digits.factor[j] = top * (t_ < 2 ? 256 / kWeightSteps : 1 / kWeightSteps);
        }
        uint32_t columns[kTiles];  // two cells of one row each
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            const uint32_t first = __float_as_uint(__fmaf_rn(w[tile][0], inverse[0], 0x1p23f));
            const uint32_t second = __float_as_uint(__fmaf_rn(w[tile][1], inverse[1], 0x1p23f));
            columns[tile] = transpose(permute(first, second, 0x5410));
        }
        // Lanes with r < 4 have row r, cells 2 t and 2 t + 1 of each tile, and are to have its high digits of all cells;
        // the others have row r - 4, cells 8 more, and are to have its low digits.
        const bool low_half = r_ < 4;
        const uint32_t high_bytes = 0x7531, low_bytes = 0x6420;
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            const uint32_t a = columns[2 * step], b = columns[2 * step + 1];
            const uint32_t kept = permute(a, b, low_half ? high_bytes : low_bytes);
            const uint32_t got = __shfl_xor_sync(kAllLanes, permute(a, b, low_half ? low_bytes : high_bytes), 16);
            digits.b[step][0] = low_half ? kept : got;
            digits.b[step][1] = low_half ? got : kept;
        }
        return digits;
    }

    template <int kUnit>
    __device__ __forceinline__ void add_pair(const uint8_t* values, const Digits& digits) {
        uint32_t words[2 * kBits];
        load_words<kUnits * kBits, kUnit * kBits>(values, lane_, words);
        add_unit(words, digits, out_[kUnit]);
        add_unit(words + kBits, digits, out_[kUnit + 1]);
    }
    __device__ __forceinline__ void add_unit(const uint32_t* words, const Digits& digits, float (&out)[4]) const {
        LevelSums<kBits> product;
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            Eight p0, n0, p1, n1;
            SlotLevels<kBits>::decode(words, step, by_, p0, n0);
            SlotLevels<kBits>::decode(words, 2 + step, by_, p1, n1);
            mma_unsigned(product.positive, p0.low, p1.low, p0.high, p1.high, digits.b[step][0], digits.b[step][1]);
            if constexpr (!SlotLevels<kBits>::kSigned)
                mma_unsigned(product.negative, n0.low, n1.low, n0.high, n1.high, digits.b[step][0],
                             digits.b[step][1]);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) out[i] = __fmaf_rn(product.at(i), digits.factor[i % 2], out[i]);
    }

    const int lane_ = threadIdx.x % 32, r_ = lane_ / 4, t_ = lane_ % 4;
    const Multipliers by_;
    int group_offset_;
    float out_[kUnits][4];  // dims r and 8 + r of the unit, two columns each
};

}  // namespace tq::cuda
