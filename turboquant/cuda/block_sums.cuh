// A warp's work on a block of 64 cells: dot products with keys, the softmax, the weighted sum of values.
//
// Lane = 4 * r + t. With four query rows a product of 16 cells has the high digits of rows 0-3 in columns 0-3 of the
// matrix and the low digits in columns 4-7. After one exchange with lane ^ 2 a lane has the logits of rows
// 2 * (t % 2) and that + 1, of cells 16 * tile + 8 * (t / 2) + r: all lanes have work in the softmax. Sums of values
// have the high digits of weights in lanes with t < 2, the low ones in the others, and dims where keys have cells.
// With eight query rows there are two products, of high and of low digits, and a lane has rows 2 * t and that + 1, of
// cells 16 * tile + r and 8 more.
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

// Which rows and cells a lane has.
template <int kRows>
struct LaneShare {
    static constexpr int kSets = kRows / 4;             // products of digits
    static constexpr int kHalves = kRows / 4;           // cells of a tile
    static constexpr int kCells = kTiles * kHalves;     // of a block
    static constexpr int kNextLane = kRows == 8 ? 4 : 2;  // lanes this far apart, and twice, ... have the same rows

    static __device__ int first_row() { return 2 * static_cast<int>(threadIdx.x % (kRows / 2)); }
    static __device__ int cell(int i) {
        const int lane = threadIdx.x % 32;
        return 16 * (i / kHalves) + 8 * (kHalves == 2 ? i % 2 : lane % 4 / 2) + lane / 4;
    }
    static __device__ __forceinline__ float max_of_cells(float x) {
#pragma unroll
        for (int h = kNextLane; h <= 16; h *= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, h));
        return x;
    }
    static __device__ __forceinline__ float sum_of_cells(float x) {
#pragma unroll
        for (int h = kNextLane; h <= 16; h *= 2) x += __shfl_xor_sync(kAllLanes, x, h);
        return x;
    }
};

template <class Traits>
class KeyProducts {
  public:
    static constexpr int kBits = Traits::kKeyBits, kUnits = Traits::kUnits;
    static constexpr int kSets = LaneShare<Traits::kRows>::kSets;

    // digits: [sets of 8 columns][head_dim] in shared memory; head_kv: where the head begins in its first group.
    __device__ KeyProducts(const int8_t* digits, int head_kv, const Multipliers& by)
        : by_(by), group_offset_(head_kv * Traits::kHeadDim % group_dims(Side::kKey)) {
#pragma unroll
        for (int i = 0; i < kSets * kUnits; ++i)
            query_[i / kUnits][i % kUnits] = *reinterpret_cast<const uint32_t*>(
                digits + (8 * (i / kUnits) + r_) * Traits::kHeadDim + 16 * (i % kUnits) + 4 * t_);
    }

    // sums[set][tile]: cells r and 8 + r of the tile, two columns each, times small scales.
    using Sums = float[kSets][kTiles][4];
    __device__ void run(const uint8_t* keys, Sums& sums) const {
#pragma unroll
        for (int i = 0; i < 4 * kTiles * kSets; ++i) sums[i / (4 * kTiles)][i / 4 % kTiles][i % 4] = 0;
        if constexpr (Traits::kWholeKeyGroups) {
            static_for<0, kUnits / 2>([&]<int kGroup>() { add_group<kGroup>(keys, sums); });
        } else {
            static_for<0, kUnits>([&]<int kUnit>() { add_unit<kUnit>(keys, sums); });
        }
    }

  private:
    // 32 dims, two units.
    template <int kGroup>
    __device__ __forceinline__ void add_group(const uint8_t* keys, Sums& sums) const {
        uint32_t words[2 * kBits];
        load_words<kUnits * kBits, 2 * kGroup * kBits>(keys, lane_, words);
        const uint2 scales = scales_of(keys, kGroup);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            Eight p0, n0, p1, n1;
            SlotLevels<kBits>::decode(words, tile, by_, p0, n0);
            SlotLevels<kBits>::decode(words + kBits, tile, by_, p1, n1);
#pragma unroll
            for (int set = 0; set < kSets; ++set) {
                LevelSums<kBits> product;
                const uint32_t b0 = query_[set][2 * kGroup], b1 = query_[set][2 * kGroup + 1];
                mma_signed(product.positive, p0.low, p0.high, p1.low, p1.high, b0, b1);
                if constexpr (!SlotLevels<kBits>::kSigned)
                    mma_signed(product.negative, n0.low, n0.high, n1.low, n1.high, b0, b1);
                add(product, scales, tile, sums[set][tile]);
            }
        }
    }
    // 16 dims.
    template <int kUnit>
    __device__ __forceinline__ void add_unit(const uint8_t* keys, Sums& sums) const {
        uint32_t words[kBits];
        load_words<kUnits * kBits, kUnit * kBits>(keys, lane_, words);
        const uint2 scales = scales_of(keys, (group_offset_ + 16 * kUnit) / group_dims(Side::kKey));
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            Eight p, n;
            SlotLevels<kBits>::decode(words, tile, by_, p, n);
#pragma unroll
            for (int set = 0; set < kSets; ++set) {
                LevelSums<kBits> product;
                mma_half(product.positive, p.low, p.high, query_[set][kUnit]);
                if constexpr (!SlotLevels<kBits>::kSigned)
                    mma_half(product.negative, n.low, n.high, query_[set][kUnit]);
                add(product, scales, tile, sums[set][tile]);
            }
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
    uint32_t query_[kSets][kUnits];
};

// What a row's softmax has of the cells so far; a lane's two rows.
struct Softmax {
    float max[2] = {kNoLogit, kNoLogit};
    float sum[2] = {0, 0};  // of 2^64 times the weights, over this lane's cells
};

// Combines the digits' sums: a lane's logits of its two rows.
__device__ __forceinline__ void logits_of(const float (&sums)[1][kTiles][4], const float (&factor)[2],
                                          float (&logits)[kTiles][2]) {
    const bool high = threadIdx.x % 4 < 2;  // the lane has high digits, and takes cells r
    const float mine = high ? 256.0f : 1.0f, others = high ? 1.0f : 256.0f;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const float first = sums[0][tile][j], second = sums[0][tile][2 + j];
            const float other = __shfl_xor_sync(kAllLanes, high ? second : first, 2);
            logits[tile][j] = __fmaf_rn(other, others, (high ? first : second) * mine) * factor[j];
        }
    }
}
__device__ __forceinline__ void logits_of(const float (&sums)[2][kTiles][4], const float (&factor)[2],
                                          float (&logits)[2 * kTiles][2]) {
#pragma unroll
    for (int i = 0; i < 4 * kTiles; ++i)
        logits[i / 2][i % 2] = __fmaf_rn(sums[0][i / 4][i % 4], 256, sums[1][i / 4][i % 4]) * factor[i % 2];
}

template <class Traits>
class ValueSums {
  public:
    static constexpr int kBits = Traits::kValueBits, kUnits = Traits::kUnits;
    using Share = LaneShare<Traits::kRows>;
    using Weights = float[Share::kCells][2];

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
    __device__ void add(const uint8_t* values, const Weights& weights) {
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

    // Calls fn(row, dim, value) in the lanes that have it.
    template <class Fn>
    __device__ void for_rows(Fn fn) const {
#pragma unroll
        for (int unit = 0; unit < kUnits; ++unit) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float sum = out_[unit][i];
                if constexpr (Share::kSets == 1) sum += __shfl_xor_sync(kAllLanes, sum, 2);  // of the other digit
                if (2 * t_ < Traits::kRows) fn(2 * t_ + i % 2, 16 * unit + 8 * (i / 2) + r_, sum);
            }
        }
    }

  private:
    // Weights of 64 cells as matrix B, two steps of 32 cells, and what a sum of products with them is to be multiplied
    // by.
    struct Digits {
        uint32_t b[Share::kSets][2][2];
        float factor[2];
    };

    __device__ __forceinline__ Digits digits_of(const uint8_t* values, int group, const Weights& weights) const {
        constexpr int kHalves = Share::kHalves;
        const uint8_t* at = values + Traits::kValueCodes + group * kBlockCells + 8 * r_;
        uint32_t scales[kHalves];  // of the lane's cells of each tile
#pragma unroll
        for (int half = 0; half < kHalves; ++half)
            scales[half] = *reinterpret_cast<const uint32_t*>(at + 4 * (kHalves == 2 ? half : t_ / 2));
        float w[Share::kCells][2], inverse[2];
        Digits digits;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            float top = 0x1p-100f;
#pragma unroll
            for (int i = 0; i < Share::kCells; ++i) {
                w[i][j] = weights[i][j] * small_scale(scales[i % kHalves], i / kHalves);
                top = fmaxf(top, w[i][j]);
            }
            top = Share::max_of_cells(top);
            inverse[j] = __fdividef(kWeightSteps, top);
            digits.factor[j] = top * (Share::kSets == 1 && t_ < 2 ? 256 / kWeightSteps : 1 / kWeightSteps);
        }
        uint32_t columns[Share::kCells];  // two cells of one row each
#pragma unroll
        for (int i = 0; i < Share::kCells; ++i) {
            const uint32_t first = __float_as_uint(__fmaf_rn(w[i][0], inverse[0], 0x1p23f));
            const uint32_t second = __float_as_uint(__fmaf_rn(w[i][1], inverse[1], 0x1p23f));
            columns[i] = transpose(permute(first, second, 0x5410));
        }
        spread(columns, digits);
        return digits;
    }

    static constexpr uint32_t kHighBytes = 0x7531, kLowBytes = 0x6420;

    // Lanes with r < 4 have row r, cells 2 t and 2 t + 1 of each tile, and are to have its high digits of all cells; the
    // others have row r - 4, cells 8 more, and are to have its low digits.
    __device__ __forceinline__ void spread(const uint32_t (&columns)[kTiles], Digits& digits) const {
        const bool low_half = r_ < 4;
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            const uint32_t a = columns[2 * step], b = columns[2 * step + 1];
            const uint32_t kept = permute(a, b, low_half ? kHighBytes : kLowBytes);
            const uint32_t got = __shfl_xor_sync(kAllLanes, permute(a, b, low_half ? kLowBytes : kHighBytes), 16);
            digits.b[0][step][0] = low_half ? kept : got;
            digits.b[0][step][1] = low_half ? got : kept;
        }
    }
    // Lanes have row r, of each half of a tile cells 2 t and 2 t + 1.
    __device__ __forceinline__ void spread(const uint32_t (&columns)[2 * kTiles], Digits& digits) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int step = i / 2, half = i % 2;
            const uint32_t a = columns[4 * step + half], b = columns[4 * step + 2 + half];
            digits.b[0][step][half] = permute(a, b, kHighBytes);
            digits.b[1][step][half] = permute(a, b, kLowBytes);
        }
    }

    template <int kUnit>
    __device__ __forceinline__ void add_pair(const uint8_t* values, const Digits& digits) {
        uint32_t words[2 * kBits];
        load_words<kUnits * kBits, kUnit * kBits>(values, lane_, words);
        add_unit(words, digits, out_[kUnit]);
        add_unit(words + kBits, digits, out_[kUnit + 1]);
    }
    __device__ __forceinline__ void add_unit(const uint32_t* words, const Digits& digits, float (&out)[4]) const {
        LevelSums<kBits> product[Share::kSets];
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            Eight p0, n0, p1, n1;
            SlotLevels<kBits>::decode(words, step, by_, p0, n0);
            SlotLevels<kBits>::decode(words, 2 + step, by_, p1, n1);
#pragma unroll
            for (int set = 0; set < Share::kSets; ++set) {
                const uint32_t b0 = digits.b[set][step][0], b1 = digits.b[set][step][1];
                mma_unsigned(product[set].positive, p0.low, p1.low, p0.high, p1.high, b0, b1);
                if constexpr (!SlotLevels<kBits>::kSigned)
                    mma_unsigned(product[set].negative, n0.low, n1.low, n0.high, n1.high, b0, b1);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float sum = product[0].at(i);
            if constexpr (Share::kSets == 2) sum = __fmaf_rn(sum, 256, product[1].at(i));
            out[i] = __fmaf_rn(sum, digits.factor[i % 2], out[i]);
        }
    }

    const int lane_ = threadIdx.x % 32, r_ = lane_ / 4, t_ = lane_ % 4;
    const Multipliers by_;
    int group_offset_;
    float out_[kUnits][4];  // dims r and 8 + r of the unit, two columns each
};

}  // namespace tq::cuda
