// Attention of one query row to cells that have exact rows, in float, 64 rows at a time, as on CPUs
// (cpu/attention/exact-inl.h). Half a SIMD group multiplies one row.
#pragma once

#include "turboquant/metal/elements.h"
#include "turboquant/metal/rotation.h"
#include "turboquant/metal/rows.h"

namespace tq {

// A running softmax: maximum (base 2), sum, and the lane's outputs relative to the maximum.
template <int head_dim>
struct Running {
    float max, sum;
    float out[registers_of(head_dim)];

    void reset() {
        max = -INFINITY;
        sum = 0;
#pragma unroll
        for (int k = 0; k < registers_of(head_dim); ++k) out[k] = 0;
    }
    void add(float part_max, float part_sum, thread const float (&part)[registers_of(head_dim)]) {
        if (part_sum == 0) return;
        const float top = greater_of(part_max, max);
        const float keep = exp2_of(max - top), take = exp2_of(part_max - top);
        sum = metal::fma(sum, keep, part_sum * take);
        max = top;
#pragma unroll
        for (int k = 0; k < registers_of(head_dim); ++k) out[k] = metal::fma(out[k], keep, part[k] * take);
    }
};

// The buffers that a row's exact cells need.
struct ExactInputs {
    device const uchar* query;  // the row's, as it came
    device const uchar* mask;
    device const ExactEntry* list;  // the token's
    device const ushort* keys;
    device const ushort* values;
    int64_t query_first, mask_first;  // elements from the begin to the row's
    int64_t key_width, value_width;   // elements of a row
    int key_first, value_first;       // the KV head's first
};

// The base-2 logit of one exact row, in all lanes of the half.
template <int head_dim>
inline float exact_logit(constant AttentionParams& p, thread const ExactInputs& in, int entry, uint lane) {
    const int key = entry < p.n_exact ? in.list[entry].k : -1;
    float dot = 0;
    if (key >= 0) {
        for (int d = int(lane % 16); d < head_dim; d += 16) {
            dot = metal::fma(load_element(in.query, in.query_first + d, p.q_type),
                             float_of_half(in.keys[key * in.key_width + in.key_first + d]), dot);
        }
    }
    dot = sum_of_half(dot);
    if (key < 0) return -INFINITY;
    float mask = 0;
    if (p.mask_type != kMaskNone) mask = load_mask(in.mask, in.mask_first + in.list[entry].cell, p.mask_type) * kLog2e;
    return finish_logit(p.softcap, dot, p.logit_factor, mask);
}

template <int head_dim_k, int head_dim_v>
inline void add_exact_rows(constant AttentionParams& p, thread const ExactInputs& in, int first, uint lane,
                           thread Running<head_dim_v>& sums) {
    float x[4];  // logits of 16 rows each: those of rows lane % 16 of every 16
#pragma unroll
    for (int v = 0; v < 4; ++v) {
        x[v] = -INFINITY;
        for (int i = 0; i < 16; i += 2) {
            const float own = exact_logit<head_dim_k>(p, in, first + 16 * v + i + int(lane / 16), lane);
            const float other = metal::simd_shuffle_xor(own, ushort(16));
            if (int(lane % 16) == i) x[v] = lane < 16 ? own : other;
            if (int(lane % 16) == i + 1) x[v] = lane < 16 ? other : own;
        }
    }
    float largest = sums.max;
#pragma unroll
    for (int v = 0; v < 4; ++v) largest = greater_of(largest, x[v]);
    const float top = metal::simd_broadcast_first(max_of_half(largest)), keep = exp2_of(sums.max - top);
    float total = 0;
#pragma unroll
    for (int v = 0; v < 4; ++v) {
        x[v] = exp2_of(x[v] - top);
        total += x[v];
    }
    sums.max = top;
    sums.sum = metal::fma(sums.sum, keep, sum_of_half(total));
#pragma unroll
    for (int k = 0; k < registers_of(head_dim_v); ++k) sums.out[k] *= keep;
#pragma unroll
    for (int v = 0; v < 4; ++v) {
        for (int i = 0; i < 16; ++i) {
            const float weight = metal::simd_shuffle(x[v], ushort(i));
            const int entry = first + 16 * v + i, row = entry < p.n_exact ? in.list[entry].v : -1;
            if (row < 0) continue;
#pragma unroll
            for (int k = 0; k < registers_of(head_dim_v); ++k) {
                if (!Rotation<head_dim_v>::has(k, lane)) continue;
                const ushort value = in.values[row * in.value_width + in.value_first + 32 * k + int(lane)];
                sums.out[k] = metal::fma(float_of_half(value), weight, sums.out[k]);
            }
        }
    }
}

// All exact rows of the list. Outputs are not rotated.
template <int head_dim_k, int head_dim_v>
inline void attend_exact(constant AttentionParams& p, thread const ExactInputs& in, uint lane,
                         thread Running<head_dim_v>& sums) {
    sums.reset();
    for (int first = 0; first < p.n_exact; first += 64) {
        if (in.list[first].k < 0) return;
        add_exact_rows<head_dim_k, head_dim_v>(p, in, first, lane, sums);
    }
}

}  // namespace tq
