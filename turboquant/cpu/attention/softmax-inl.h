// Softmax of a span of blocks over Ops, up to four rows at a time, and its probabilities as integer weights. A span at
// once, not a block: chains of dependent operations (a maximum, a sum, a division) then end once in a span, and the
// rest is wide loops.
#pragma once

#include <algorithm>
#include <limits>

#include "turboquant/attention/plan.h"
#include "turboquant/base/inline.h"

namespace tq::attention_impl {

inline constexpr float kLog2e = 1.44269504088896340736f;
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr int kSoftmaxRows = 4;

// Order in which weights of a block are rounded up: bit-reversed, so that any run of cells is treated evenly.
struct Dither {
    alignas(64) float offset[kBlockCells];
    constexpr Dither() : offset{} {
        for (int i = 0; i < kBlockCells; ++i) {
            int reversed = 0;
            for (int bit = 0; bit < 6; ++bit) reversed |= ((i >> bit) & 1) << (5 - bit);
            offset[i] = (static_cast<float>(reversed) + 0.5f) / kBlockCells - 0.5f;
        }
    }
};
inline constexpr Dither kDither;

// The masks that most blocks have.
struct ConstantMask {
    alignas(64) float logits[kBlockCells];
    constexpr explicit ConstantMask(float value) : logits{} {
        for (float& logit : logits) logit = value;
    }
};
inline constexpr ConstantMask kUnmasked(0);
inline constexpr ConstantMask kFullyMasked(-kInfinity);

// The blocks of a span that some row of the tile attends to, and what each row of the tile sees of them.
struct SpanMasks {
    int n_blocks;
    const float* of_block[kSpanBlocks][kMaxTileRows];  // 64 base-2 logits each; kFullyMasked.logits itself for a row
                                                       // that sees nothing
};

inline constexpr int kPaddedRows = kMaxTileRows + 16;  // rows of arrays that are written by whole vectors

// Weights are [row][block][2 digits][64].
inline constexpr int kBlockWeights = 2 * kBlockCells;
inline constexpr int kRowWeights = kSpanBlocks * kBlockWeights;

// Running softmax of a tile's rows: maxima (base 2), sums and outputs relative to them. Arrays over rows are padded to
// whole vectors behind the last row.
struct RunningRows {
    float* max;
    float* sum;
    float* out;     // [row][stride]
    size_t stride;  // floats
};

template <class Ops>
struct Softmax {
    using F = typename Ops::F;
    using I = typename Ops::I;

    // 2^x for x <= 126: relative error below 4e-6; exactly 0 for x <= -127 and NaN, exactly 1 for 0.
    static TQ_INLINE F exp2(F x) {
        x = Ops::max(x, Ops::set1(-127.0f));
        const I n = Ops::round_to_int(x);
        const F f = Ops::sub(x, Ops::to_float(n));
        F p = Ops::set1(9.6181291e-3f);
        p = Ops::fma(p, f, Ops::set1(5.5504109e-2f));
        p = Ops::fma(p, f, Ops::set1(2.4022651e-1f));
        p = Ops::fma(p, f, Ops::set1(6.9314718e-1f));
        p = Ops::fma(p, f, Ops::set1(1.0f));
        return Ops::mul(p, Ops::pow2(n));
    }

    static TQ_INLINE float exp2(float x) {
        alignas(64) float lanes[16];
        Ops::store(lanes, exp2(Ops::set1(x)));
        return lanes[0];
    }

    // tanh x = 1 - 2 / (e^2x + 1)
    static TQ_INLINE F tanh(F x) {
        const F e = exp2(Ops::min(Ops::mul(x, Ops::set1(2.0f * kLog2e)), Ops::set1(126.0f)));
        return Ops::sub(Ops::set1(1.0f), Ops::div(Ops::set1(2.0f), Ops::add(e, Ops::set1(1.0f))));
    }

    // Base-2 logits from dot products: scale, softcap, mask (already times slope and log2 e).
    static TQ_INLINE F finish_logit(float softcap, F dot, float logit_scale, F mask) {
        if (softcap > 0) [[unlikely]] {
            return Ops::fma(tanh(Ops::mul(dot, Ops::set1(logit_scale / softcap))), Ops::set1(softcap * kLog2e), mask);
        }
        return Ops::fma(dot, Ops::set1(logit_scale), mask);
    }

    static TQ_INLINE F max4(const F (&x)[4]) { return Ops::max(Ops::max(x[0], x[1]), Ops::max(x[2], x[3])); }

    // Lambdas, as a pointer to a member of Ops would have that compiled out of line, maybe for another Ops that
    // inherits it.
    static constexpr auto reduce_max = [](const F (&rows)[4], float* out) TQ_LAMBDA { Ops::reduce_max_4(rows, out); };
    static constexpr auto reduce_add = [](const F (&rows)[4], float* out) TQ_LAMBDA { Ops::reduce_add_4(rows, out); };

    // One number a row: lane r of the result is row r's; lanes behind the last row are `rest`.
    template <int n, class Reduce>
    static TQ_INLINE F one_lane_a_row(const F (&rows)[kSoftmaxRows], float rest, Reduce reduce) {
        alignas(64) float lanes[16];
        Ops::store(lanes, Ops::set1(rest));
        alignas(16) float reduced[kSoftmaxRows];
        reduce(rows, reduced);
        for (int r = 0; r < n; ++r) lanes[r] = reduced[r];
        return Ops::load(lanes);
    }

    // Turns n rows of dot products of a span into probabilities relative to each row's running maximum, which they
    // raise, and adds them to the running sum; running outputs are rescaled. A row that attends to nothing in the span
    // changes nothing.
    template <int n>
    static void probabilities(float softcap, float* x, const float* logit_scale, const SpanMasks& masks,
                              const RunningRows& rows, int row, int head_dim_v) {
        const F top = logits<n>(softcap, x, logit_scale, masks, row);
        const F old_max = Ops::load(rows.max + row), new_max = Ops::max(top, old_max),
                old_factor = exp2(Ops::sub(old_max, new_max));
        alignas(64) float tops[16], rescale[16];
        Ops::store(tops, new_max);
        Ops::store(rescale, old_factor);
        const F sum = exponentials<n>(x, tops, masks.n_blocks);
        Ops::store(rows.sum + row, Ops::fma(Ops::load(rows.sum + row), old_factor, sum));
        Ops::store(rows.max + row, new_max);
        for (int r = 0; r < n; ++r) {
            if (rescale[r] == 1) continue;
            float* out = rows.out + rows.stride * (row + r);
            for (int d = 0; d < head_dim_v; d += 16)
                Ops::store(out + d, Ops::mul(Ops::load(out + d), Ops::set1(rescale[r])));
        }
    }

    // p * value scale of n rows of a span as integers of one 7-bit digit, or two (high, then low), relative to the
    // largest of the row's block: weights [row][block][2 digits][64]. unit [block][kPaddedRows]: what one unit of the
    // row's integer sums is worth; 0 if all its weights are 0.
    template <int n, int digits>
    static void quantize_weights(const float* p, const uint8_t* const* value_scales, int n_blocks, uint8_t* weights,
                                 float* unit) {
        constexpr float kLargest = digits == 1 ? 127.0f : 127.0f * 128.0f;
        alignas(64) float inverse[kSpanBlocks][16];
        for (int b = 0; b < n_blocks; ++b) {
            const F top = largest_weights<n>(p + kBlockCells * b, value_scales[b]);
            // A tiny `top` (0 or subnormal) would overflow the inverse.
            Ops::store(inverse[b], Ops::min(Ops::div(Ops::set1(kLargest), top), Ops::set1(0x1p126f)));
            Ops::store(unit + kPaddedRows * b, Ops::mul(top, Ops::set1(1.0f / kLargest)));
        }
        for (int b = 0; b < n_blocks; ++b) {
            round_weights<n, digits>(p + kBlockCells * b, value_scales[b], inverse[b], weights + kBlockWeights * b);
        }
    }

  private:
    // Base-2 logits in place of dot products. Returns the rows' maxima, a lane each.
    template <int n>
    static TQ_INLINE F logits(float softcap, float* x, const float* logit_scale, const SpanMasks& masks, int row) {
        F largest[kSoftmaxRows];
        TQ_UNROLL
        for (int r = 0; r < kSoftmaxRows; ++r) largest[r] = Ops::set1(-kInfinity);
        for (int b = 0; b < masks.n_blocks; ++b, x += kBlockCells) {
            TQ_UNROLL
            for (int r = 0; r < n; ++r) {
                const float* mask = masks.of_block[b][row + r];
                F logits[4];
                TQ_UNROLL
                for (int v = 0; v < 4; ++v) {
                    float* target = x + kSpanCells * r + 16 * v;
                    // What was not computed for a row that attends to nothing here may be anything.
                    logits[v] = mask == kFullyMasked.logits ? Ops::set1(-kInfinity)
                                                            : finish_logit(softcap, Ops::load(target), logit_scale[r],
                                                                           Ops::load(mask + 16 * v));
                    Ops::store(target, logits[v]);
                }
                largest[r] = Ops::max(largest[r], max4(logits));
            }
        }
        return one_lane_a_row<n>(largest, -kInfinity, reduce_max);
    }

    // 2^(x - top) in place of x. Returns the rows' sums, a lane each.
    template <int n>
    static TQ_INLINE F exponentials(float* x, const float* tops, int n_blocks) {
        F sums[kSoftmaxRows];
        TQ_UNROLL
        for (int r = 0; r < kSoftmaxRows; ++r) sums[r] = Ops::set1(0);
        for (int b = 0; b < n_blocks; ++b, x += kBlockCells) {
            TQ_UNROLL
            for (int r = 0; r < n; ++r) {
                F p[4];
                TQ_UNROLL
                for (int v = 0; v < 4; ++v) {
                    float* target = x + kSpanCells * r + 16 * v;
                    p[v] = exp2(Ops::sub(Ops::load(target), Ops::set1(tops[r])));
                    Ops::store(target, p[v]);
                }
                sums[r] = Ops::add(sums[r], Ops::add(Ops::add(p[0], p[1]), Ops::add(p[2], p[3])));
            }
        }
        return one_lane_a_row<n>(sums, 0.0f, reduce_add);
    }

    // The largest p * value scale of a block, a lane each row.
    template <int n>
    static TQ_INLINE F largest_weights(const float* p, const uint8_t* value_scales) {
        F largest[kSoftmaxRows], scales[4];
        TQ_UNROLL
        for (int v = 0; v < 4; ++v) scales[v] = Ops::load_scale(value_scales + 16 * v);
        TQ_UNROLL
        for (int r = 0; r < kSoftmaxRows; ++r) {
            if (r >= n) {
                largest[r] = largest[0];
            } else {
                F w[4];
                TQ_UNROLL
                for (int v = 0; v < 4; ++v) w[v] = Ops::mul(Ops::load(p + kSpanCells * r + 16 * v), scales[v]);
                largest[r] = max4(w);
            }
        }
        return one_lane_a_row<n>(largest, 0.0f, reduce_max);
    }

    template <int n, int digits>
    static TQ_INLINE void round_weights(const float* p, const uint8_t* value_scales, const float* inverse,
                                        uint8_t* weights) {
        F scales[4];
        TQ_UNROLL
        for (int v = 0; v < 4; ++v) scales[v] = Ops::load_scale(value_scales + 16 * v);
        TQ_UNROLL
        for (int r = 0; r < n; ++r) {
            I integer[4];
            TQ_UNROLL
            for (int v = 0; v < 4; ++v) {
                const F w = Ops::mul(Ops::load(p + kSpanCells * r + 16 * v), scales[v]);
                integer[v] = Ops::round_to_int(Ops::fma(w, Ops::set1(inverse[r]), Ops::load(kDither.offset + 16 * v)));
            }
            uint8_t* out = weights + kRowWeights * r;
            if constexpr (digits == 1) {
                Ops::store_bytes_4(out, integer);
            } else {
                I high[4], low[4];
                TQ_UNROLL
                for (int v = 0; v < 4; ++v) {
                    high[v] = Ops::template shift_right_int<7>(integer[v]);
                    low[v] = Ops::and_int(integer[v], 127);
                }
                Ops::store_bytes_4(out, high);
                Ops::store_bytes_4(out + kBlockCells, low);
            }
        }
    }
};

}  // namespace tq::attention_impl
