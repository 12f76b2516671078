// Partial results of chunks into the output row: chunks into their super-chunk, super-chunks into the row, in cell
// order, as on CPUs; then sink logits, the division, and the inverse rotation.
#include "turboquant/metal/elements.h"
#include "turboquant/metal/exact.h"
#include "turboquant/metal/rotation.h"
#include "turboquant/metal/rows.h"

namespace tq {

template <int head_dim>
inline void load_partial(device const float* stats, device const float* outs, int64_t partial, uint lane,
                         thread Running<head_dim>& part) {
    part.max = stats[2 * partial];
    part.sum = stats[2 * partial + 1];
#pragma unroll
    for (int k = 0; k < registers_of(head_dim); ++k) {
        const bool has = Rotation<head_dim>::has(k, lane);
        part.out[k] = has ? outs[partial * head_dim + 32 * k + int(lane)] : 0.0f;
    }
}

// A SIMD group for each row: grid (n_head, n_tokens, n_stream).
template <int head_dim_k, int head_dim_v>
[[kernel]] void merge(
    constant AttentionParams& p [[buffer(kBufferParams)]], device const int* lengths [[buffer(kBufferLengths)]],
    device const uchar* query [[buffer(kBufferQuery)]], device const float* sinks [[buffer(kBufferSinks)]],
    device const float* rotation [[buffer(kBufferValueRotation)]],
    device const float* logit_scale [[buffer(kBufferLogitScale)]],
    device const float* partial_stats [[buffer(kBufferPartialStats)]],
    device const float* partial_out [[buffer(kBufferPartialOut)]], device const uchar* mask [[buffer(kBufferMask)]],
    device const ExactEntry* exact_list [[buffer(kBufferExactList)]],
    device const ushort* exact_keys [[buffer(kBufferExactKeys)]],
    device const ushort* exact_values [[buffer(kBufferExactValues)]], device uchar* out [[buffer(kBufferOut)]],
    uint3 group [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    constexpr int n = registers_of(head_dim_v);
    const int head = int(group.x), token = int(group.y), stream = int(group.z);
    const Lengths stream_lengths = lengths_of(lengths, stream);
    if (token >= stream_lengths.n_tokens) return;
    const CellRange cells = cells_of(p, stream_lengths, token);
    const int64_t row = row_index(p, stream, token, head), base = first_chunk_of(p, stream_lengths);

    Running<head_dim_v> total;
    total.reset();
    const int64_t end = cells.first < cells.end ? n_super_chunks(cells.end) : 0;
    for (int64_t i = super_chunk_of(cells.first); i < end; ++i) {
        const int64_t first = super_chunk_begin(i) / kChunkCells, last = super_chunk_begin(i + 1) / kChunkCells - 1;
        Running<head_dim_v> part;
        if (first == last) {
            load_partial<head_dim_v>(partial_stats, partial_out, row * p.n_chunks + first - base, lane, part);
        } else {
            part.reset();
            const int64_t last_seen = metal::min(last, (cells.end - 1) / kChunkCells);
            for (int64_t chunk = metal::max(first, cells.first / kChunkCells); chunk <= last_seen; ++chunk) {
                Running<head_dim_v> of_chunk;
                load_partial<head_dim_v>(partial_stats, partial_out, row * p.n_chunks + chunk - base, lane, of_chunk);
                part.add(of_chunk.max, of_chunk.sum, of_chunk.out);
            }
        }
        total.add(part.max, part.sum, part.out);
    }

    float max = total.max, sum = total.sum, factor = 1, exact_factor = 0;
    Running<head_dim_v> exact;
    const int head_kv = head / (p.n_head / p.n_head_kv);
    if (p.n_exact > 0) {
        ExactInputs in;
        in.query = query;
        in.mask = mask;
        in.list = exact_list + (int64_t(stream) * p.n_tokens + token) * p.n_exact;
        in.keys = exact_keys;
        in.values = exact_values;
        in.query_first = stream * p.q.stream + token * p.q.token + head * p.q.head;
        in.mask_first = stream * p.mask.stream + token * p.mask.token + head * p.mask.head;
        in.key_width = int64_t(p.n_head_kv) * head_dim_k;
        in.value_width = int64_t(p.n_head_kv) * head_dim_v;
        in.key_first = head_kv * head_dim_k;
        in.value_first = head_kv * head_dim_v;
        attend_exact<head_dim_k, head_dim_v>(p, in, lane, exact);
        const float top = max > exact.max ? max : exact.max;
        factor = exp2_of(max - top);
        exact_factor = exp2_of(exact.max - top);
        sum = metal::fma(sum, factor, exact.sum * exact_factor);
        max = top;
    }
    if (p.has_sinks != 0) {
        const float sink = sinks[head] * kLog2e;
        const float top = max > sink ? max : sink, keep = exp2_of(max - top);
        factor *= keep;
        exact_factor *= keep;
        sum = metal::fma(sum, keep, exp2_of(sink - top));
        max = top;
    }
    factor = sum > 0 ? factor / sum : 0.0f;
    exact_factor = sum > 0 ? exact_factor / sum : 0.0f;
    const float query_scale = logit_scale[row];
    if (query_scale != query_scale) {  // NaN in, NaN out
        factor = query_scale;
        exact_factor = 0;
    }
#pragma unroll
    for (int k = 0; k < n; ++k) total.out[k] *= factor;
    Rotation<head_dim_v>::invert(total.out, rotation + head_kv * p.v_rotation_stride, lane);
    const int64_t target = stream * p.out.stream + token * p.out.token + head * p.out.head;
#pragma unroll
    for (int k = 0; k < n; ++k) {
        if (!Rotation<head_dim_v>::has(k, lane)) continue;
        float value = total.out[k];
        if (exact_factor != 0) value = metal::fma(exact.out[k], exact_factor, value);
        store_element(out, target + 32 * k + int(lane), p.out_type, value);
    }
}

}  // namespace tq
