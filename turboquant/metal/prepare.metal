// Queries: rotated and quantized to int8 with one scale for a head.
#include "turboquant/metal/elements.h"
#include "turboquant/metal/rotation.h"
#include "turboquant/metal/rows.h"

namespace tq {

// The sum of magnitudes as the CPU adds them up (16 lanes, step by step), which decides whether a query is finite.
template <int head_dim>
inline float sum_of_magnitudes(thread const float (&x)[registers_of(head_dim)], uint lane) {
    float sum = 0;
#pragma unroll
    for (int k = 0; k < registers_of(head_dim); ++k) {
        const float own = metal::fabs(x[k]), other = metal::simd_shuffle_xor(own, ushort(16));
        sum += lane < 16 ? own : other;
        if (32 * k + 16 < head_dim) sum += lane < 16 ? other : own;
    }
    return sum_of_half(sum);
}

// A SIMD group for each query row: grid (n_head, n_tokens, n_stream).
template <int head_dim>
[[kernel]] void prepare(constant AttentionParams& p [[buffer(kBufferParams)]],
                        device const int* lengths [[buffer(kBufferLengths)]],
                        device const uchar* query [[buffer(kBufferQuery)]],
                        device const float* rotation [[buffer(kBufferKeyRotation)]],
                        device half* prepared [[buffer(kBufferPreparedQuery)]],
                        device float* logit_scale [[buffer(kBufferLogitScale)]],
                        uint3 group [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    const int head = int(group.x), token = int(group.y), stream = int(group.z);
    if (token >= lengths_of(lengths, stream).n_tokens) return;
    const int64_t first = stream * p.q.stream + token * p.q.token + head * p.q.head;
    float x[registers_of(head_dim)];
#pragma unroll
    for (int k = 0; k < registers_of(head_dim); ++k) {
        x[k] = Rotation<head_dim>::has(k, lane) ? load_element(query, first + 32 * k + int(lane), p.q_type) : 0.0f;
    }
    const int head_kv = head / (p.n_head / p.n_head_kv);
    Rotation<head_dim>::apply(x, rotation + head_kv * p.k_rotation_stride, kRotationFirstInverse, lane);
    float largest = 0;
#pragma unroll
    for (int k = 0; k < registers_of(head_dim); ++k) largest = greater_of(largest, metal::fabs(x[k]));
    largest = metal::simd_max(largest);
    const bool finite = sum_of_magnitudes<head_dim>(x, lane) < INFINITY;
    // A subnormal `largest` would overflow the inverse.
    const float most = 127.0f / largest,
                inverse = finite && largest > 0 ? (kLargestInverse < most ? kLargestInverse : most) : 0.0f;
    const int64_t row = row_index(p, stream, token, head);
#pragma unroll
    for (int k = 0; k < registers_of(head_dim); ++k) {
        if (Rotation<head_dim>::has(k, lane))
            prepared[row * head_dim + 32 * k + int(lane)] = half(finite ? rounded(x[k] * inverse) : 0.0f);
    }
    if (lane == 0) logit_scale[row] = finite ? largest / 127.0f * p.logit_factor : NAN;
}

}  // namespace tq
