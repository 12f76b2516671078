// Attention of up to eight query rows of one KV head to one chunk of 512 cells, on packed keys and values.
//
// A span of four blocks of 64 cells at a time, as on CPUs (cpu/attention/attention-inl.h):
//   keys     a SIMD group for each block, a lane for two cells: no reduction for a logit
//   softmax  a lane for the same two cells; maxima and sums of the blocks meet in threadgroup memory
//   values   half a SIMD group for each step of 16 dims, a lane for one dim and all cells: no reduction for an output
// Each code is decoded once for all rows. Products of integers are summed in float, where they are exact: 32 terms of at
// most 127 * 128, or 64, are below 2^24.
#include "turboquant/metal/attend_shape.h"
#include "turboquant/metal/centers.h"
#include "turboquant/metal/elements.h"
#include "turboquant/metal/half_tile.h"
#include "turboquant/metal/record_view.h"
#include "turboquant/metal/row_tile.h"
#include "turboquant/metal/rows.h"

namespace tq {

// A lane's two cells of a block: number `first` and `first + 16`.
inline int first_cell_of(uint lane) {
    return int(lane / 16 * 32 + lane % 16);
}

// Eight halves of threadgroup memory that all lanes read: one load.
inline void load_eight(threadgroup const half* from, thread float4* eight) {
    const uint4 words = *reinterpret_cast<threadgroup const uint4*>(from);
    eight[0] = float4(as_type<half4>(words.xy));
    eight[1] = float4(as_type<half4>(words.zw));
}

inline float add_dot(float4 a, float4 b, float sum) {
    return metal::fma(a.w, b.w, metal::fma(a.z, b.z, metal::fma(a.y, b.y, metal::fma(a.x, b.x, sum))));
}

// The queries of a step times its keys, of the lane's two cells. queries: of the step, rows head_dim apart.
template <int head_dim, int codes, int rows>
inline void add_products(thread const HalfTile<codes>& keys, threadgroup const half* queries, thread float2* products) {
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {  // 8 dims
        const float4 first[2] = {keys.centroids(2 * pair), keys.centroids(2 * pair + 1)};
        const float4 second[2] = {keys.centroids(4 + 2 * pair), keys.centroids(4 + 2 * pair + 1)};
#pragma unroll
        for (int r = 0; r < rows; ++r) {
            float4 q[2];
            load_eight(queries + r * head_dim + 8 * pair, q);
            products[r].x = add_dot(q[1], first[1], add_dot(q[0], first[0], products[r].x));
            products[r].y = add_dot(q[1], second[1], add_dot(q[0], second[0], products[r].y));
        }
    }
}

// Dot products of the lane's two cells of a block with all rows, in units of the query's scale, on top of those with
// the block's center.
template <int head_dim, int codes, int rows>
inline void dots_of_block(device const uchar* record, thread const HeadView& keys,
                          threadgroup const half* queries, uint lane, thread float2* sums) {
    constexpr int steps = head_dim / kStepDims, bits = bits_of(codes);
    float2 products[rows];
#pragma unroll
    for (int r = 0; r < rows; ++r) products[r] = float2(0);
    for (int step = 0; step < steps; ++step) {
        HalfTile<codes> tile;
        tile.load(Side::kKey,
                  half_tile_place(record + offset_of_tile<uint>(Side::kKey, bits, uint(keys.first_step + step)),
                                  keys.continues(Side::kKey, step), lane / 16, lane % 16));
        add_products<head_dim, codes, rows>(tile, queries + step * kStepDims, products);
        if (!keys.ends_segment(Side::kKey, step, steps)) continue;
        const uint group = uint(keys.first_step + step) >> group_steps_log2(Side::kKey);
        device const uchar* scales =
            record + offset_of_scales<uint>(Side::kKey, bits, group, uint(keys.row_steps)) + first_cell_of(lane);
        const float2 scale = float2(scale_from_code(scales[0]), scale_from_code(scales[16]));
#pragma unroll
        for (int r = 0; r < rows; ++r) {
            sums[r] = metal::fma(products[r], scale, sums[r]);
            products[r] = float2(0);
        }
    }
}

// Half tiles of values, of `steps` dims of the lane and 32 cells, times all rows' weights. weights: [digit][row][64], of
// the first of these cells. sums: [step][digit][row].
template <int codes, int rows, int digits, int steps>
inline void add_weighted(thread const HalfTile<codes>* values, threadgroup const half* weights, thread float* sums) {
#pragma unroll
    for (int unit = 0; unit < 8; unit += 2) {  // 8 cells
        float4 c[steps][2];
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            c[s][0] = values[s].centroids(unit);
            c[s][1] = values[s].centroids(unit + 1);
        }
#pragma unroll
        for (int i = 0; i < digits * rows; ++i) {
            float4 w[2];
            load_eight(weights + i * kBlockCells + 4 * unit, w);
#pragma unroll
            for (int s = 0; s < steps; ++s) {
                thread float& sum = sums[s * digits * rows + i];
                sum = add_dot(w[1], c[s][1], add_dot(w[0], c[s][0], sum));
            }
        }
    }
}

// Adds a block's values, of the lane's dim in `steps` steps of one group, times the weights of its cells to the rows'
// outputs, which are out_steps floats apart. continues: as HalfTilePlace has it, of the first step. units: of the rows.
template <int codes, int rows, int digits, int steps>
inline void add_block(device const uchar* tiles, bool continues, threadgroup const half* weights,
                      threadgroup const float* units, uint lane, thread float* out, int out_steps) {
    float sums[steps * digits * rows];
#pragma unroll
    for (int i = 0; i < steps * digits * rows; ++i) sums[i] = 0;
    for (int part = 0; part < 2; ++part) {
        HalfTile<codes> values[steps];
#pragma unroll
        for (int s = 0; s < steps; ++s)
            values[s].load(Side::kValue, half_tile_place(tiles + s * bytes_of_tile<uint>(bits_of(codes)),
                                                         continues || s > 0, uint(part), lane % 16));
        add_weighted<codes, rows, digits, steps>(values, weights + 32 * part, sums);
    }
#pragma unroll
    for (int r = 0; r < rows; ++r) {
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            thread const float* of_step = sums + s * digits * rows;
            const float sum =
                digits == 1 ? of_step[r] : metal::fma(of_step[r], 128.0f, of_step[(digits - 1) * rows + r]);
            out[r * out_steps + s] = metal::fma(sum, units[r], out[r * out_steps + s]);
        }
    }
}

// Weights w = p * value scale of the lane's two cells as integers relative to the block's largest: of one 7-bit digit, or
// two. weights: of the first of the lane's cells, the second digit `second` halves further. Returns what one unit is
// worth.
template <int digits>
inline float store_weights(float2 w, float top, float2 dither, threadgroup half* weights, int second) {
    constexpr float largest = digits == 1 ? 127.0f : 127.0f * 128.0f;
    const float inverse = less_of(largest / top, kLargestInverse);  // a tiny `top` would overflow it
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const float n = rounded(metal::fma(w[i], inverse, dither[i]));
        if (digits == 1) {
            weights[16 * i] = half(n);
        } else {
            const float high = metal::floor(n * (1.0f / 128.0f));
            weights[16 * i] = half(high);
            weights[second + 16 * i] = half(n - 128.0f * high);
        }
    }
    return top * (1.0f / largest);
}

// Grid (row tiles of all KV heads, chunks, streams), attend_simd_groups() SIMD groups each.
template <int head_dim_k, int head_dim_v, int key_codes, int value_codes, int rows, int centered>
[[kernel]] void attend(constant AttentionParams& p [[buffer(kBufferParams)]],
                       device const int* lengths [[buffer(kBufferLengths)]],
                       device const uchar* keys [[buffer(kBufferKeys)]],
                       device const uchar* values [[buffer(kBufferValues)]],
                       device const int* key_table [[buffer(kBufferKeyTable)]],
                       device const int* value_table [[buffer(kBufferValueTable)]],
                       device const uchar* mask [[buffer(kBufferMask)]],
                       device const half* prepared [[buffer(kBufferPreparedQuery)]],
                       device const float* logit_scale [[buffer(kBufferLogitScale)]],
                       device float* partial_stats [[buffer(kBufferPartialStats)]],
                       device float* partial_out [[buffer(kBufferPartialOut)]],
                       device const uint* hidden [[buffer(kBufferExactHidden)]],
                       uint3 group [[threadgroup_position_in_grid]], uint simd [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
    constexpr int groups = attend_simd_groups(head_dim_v), threads = 32 * groups;
    constexpr int key_bits = bits_of(key_codes), value_bits = bits_of(value_codes);
    constexpr int digits = attend_digits(value_bits), segments = attend_value_segments(head_dim_v);
    constexpr int own_blocks = kSpan / groups;                         // blocks of a span that a SIMD group has
    constexpr int steps_v = head_dim_v / kStepDims;
    constexpr int own_steps = (steps_v + 2 * groups - 1) / (2 * groups);  // steps that half a SIMD group has
    // Steps that share loads of weights: those of a group. With odd heads two steps may be of different groups.
    constexpr int steps_together = head_dim_v % 32 == 0 && own_steps % 2 == 0 ? 2 : 1;
    threadgroup uint4 queries_memory[rows * head_dim_k / 8];
    threadgroup uint4 weights_memory[kSpan * segments * digits * rows * kBlockCells / 8];
    threadgroup float units[kSpan * segments * rows];
    threadgroup float maxima[kSpan * rows];
    threadgroup float sums_of_lanes[kSpan * rows * 16];
    threadgroup int live_of_spans[2 * kSpan];  // of this span and, for SIMD groups that are ahead, of the next
    threadgroup float centers[centered != 0 ? kChunkOfBlocks * rows : 1];
    // Arrays of vectors, for their alignment.
    threadgroup half* queries = reinterpret_cast<threadgroup half*>(queries_memory);
    threadgroup half* weights = reinterpret_cast<threadgroup half*>(weights_memory);

    const RowTile tile = row_tile(p, lengths, group, rows);
    if (tile.n <= 0) return;
    const int stream = tile.stream;
    const BlockRange blocks = blocks_of_tile(p, tile, group.y);
    const int64_t first_block = blocks.first, end_block = blocks.end, chunk = blocks.chunk;
    if (first_block >= end_block) return;

    const Records key_records = {keys, key_table, stream * p.k_stream_blocks, p.k_record_bytes, p.has_k_table != 0};
    const Records value_records = {values, value_table, stream * p.v_stream_blocks, p.v_record_bytes,
                                   p.has_v_table != 0};
    const HeadView key_head = head_view(tile.head_kv, head_dim_k, p.n_head_kv);
    const HeadView value_head = head_view(tile.head_kv, head_dim_v, p.n_head_kv);

    const int thread_index = int(simd * 32 + lane);
    for (int i = thread_index; i < rows * head_dim_k; i += threads) {
        const int row = i / head_dim_k;
        queries[i] = row < tile.n
                         ? prepared[row_index(p, stream, tile.token(row), tile.head(row)) * head_dim_k + i % head_dim_k]
                         : half(0);
    }
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    if (centered != 0) {
        for (int i = thread_index; i < kChunkOfBlocks * rows; i += threads) {
            const int64_t block = chunk * kChunkOfBlocks + i / rows;
            centers[i] = block >= first_block && block < end_block
                             ? dot_of_center<head_dim_k>(key_records.at(block), key_bits, key_head,
                                                         queries + i % rows * head_dim_k)
                             : 0.0f;
        }
        threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    }

    float scale_of_row[rows], running_max[rows], running_sum[rows];
    float out[rows * own_steps];
#pragma unroll
    for (int r = 0; r < rows; ++r) {
        const int row = r < tile.n ? r : 0;
        scale_of_row[r] = logit_scale[row_index(p, stream, tile.token(row), tile.head(row))];
        running_max[r] = -INFINITY;
        running_sum[r] = 0;
#pragma unroll
        for (int i = 0; i < own_steps; ++i) out[r * own_steps + i] = 0;
    }
    const int lane_cell = first_cell_of(lane), first_own_step = int(2 * simd + lane / 16) * own_steps;
    const float2 dither = float2(dither_of(lane_cell), dither_of(lane_cell + 16));

    for (int64_t span = chunk * kChunkOfBlocks; span < end_block; span += kSpan) {
        if (span + kSpan <= first_block) continue;
        threadgroup int* live = live_of_spans + span / kSpan % 2 * kSpan;
        float2 x[own_blocks][rows];  // logits of the lane's cells, then their probabilities
#pragma unroll
        for (int i = 0; i < own_blocks; ++i) {
            const int b = i * groups + int(simd);
            const int64_t block = span + b;
            float2 masks[rows];
            bool sees[rows], any = false;
#pragma unroll
            for (int r = 0; r < rows; ++r) {
                masks[r] = float2(-INFINITY);
                if (r < tile.n && block >= first_block && block < end_block) {
                    const int64_t cell = block * kBlockCells + lane_cell;
                    masks[r] = float2(mask_of_cell(p, mask, hidden, tile, r, cell),
                                      mask_of_cell(p, mask, hidden, tile, r, cell + 16));
                }
                sees[r] = !metal::simd_all(masks[r].x == -INFINITY && masks[r].y == -INFINITY);
                any = any || sees[r];
            }
            float2 dots[rows];
#pragma unroll
            for (int r = 0; r < rows; ++r)
                dots[r] = float2(centered != 0 ? centers[(block - chunk * kChunkOfBlocks) * rows + r] : 0.0f);
            if (any) dots_of_block<head_dim_k, key_codes, rows>(key_records.at(block), key_head, queries, lane, dots);
            if (centered != 0 && block == 0 && lane_cell < kUncenteredCells) {
#pragma unroll
                for (int r = 0; r < rows; ++r) dots[r].x -= centers[r];
            }
            if (lane == 0) live[b] = any ? 1 : 0;
#pragma unroll
            for (int r = 0; r < rows; ++r) {
                x[i][r] = sees[r] ? float2(finish_logit(p.softcap, dots[r].x, scale_of_row[r], masks[r].x),
                                           finish_logit(p.softcap, dots[r].y, scale_of_row[r], masks[r].y))
                                  : float2(-INFINITY);
                const float largest = metal::simd_max(greater_of(x[i][r].x, x[i][r].y));
                if (lane == 0) maxima[b * rows + r] = largest;
            }
        }
        threadgroup_barrier(metal::mem_flags::mem_threadgroup);

        float rescale[rows];
#pragma unroll
        for (int r = 0; r < rows; ++r) {
            float top = maxima[r];
#pragma unroll
            for (int b = 1; b < kSpan; ++b) top = greater_of(top, maxima[b * rows + r]);
            const float new_max = greater_of(top, running_max[r]);
            rescale[r] = exp2_of(running_max[r] - new_max);
            running_max[r] = new_max;
        }
#pragma unroll
        for (int i = 0; i < own_blocks; ++i) {
            const int b = i * groups + int(simd);
            if (live[b] == 0) {
#pragma unroll
                for (int r = 0; r < rows; ++r)
                    if (lane < 16) sums_of_lanes[(b * rows + r) * 16 + lane] = 0;
                continue;
            }
#pragma unroll
            for (int r = 0; r < rows; ++r) {
                x[i][r] = float2(exp2_of(x[i][r].x - running_max[r]), exp2_of(x[i][r].y - running_max[r]));
                const float two = x[i][r].x + x[i][r].y, four = two + metal::simd_shuffle_xor(two, ushort(16));
                if (lane < 16) sums_of_lanes[(b * rows + r) * 16 + lane] = four;
            }
            device const uchar* record = value_records.at(span + b);
            for (int s = 0; s < value_head.segments(Side::kValue, steps_v); ++s) {
                const uint scale_group = (uint(value_head.first_step) >> group_steps_log2(Side::kValue)) + uint(s);
                device const uchar* scales =
                    record + offset_of_scales<uint>(Side::kValue, value_bits, scale_group, uint(value_head.row_steps)) +
                    lane_cell;
                const float2 scale = float2(scale_from_code(scales[0]), scale_from_code(scales[16]));
                const int at = b * segments + s;
#pragma unroll
                for (int r = 0; r < rows; ++r) {
                    const float2 w = x[i][r] * scale;
                    const float unit = store_weights<digits>(w, metal::simd_max(greater_of(w.x, w.y)), dither,
                                                             weights + (at * digits * rows + r) * kBlockCells + lane_cell,
                                                             rows * kBlockCells);
                    if (lane == 0) units[at * rows + r] = unit;
                }
            }
        }
        threadgroup_barrier(metal::mem_flags::mem_threadgroup);

#pragma unroll
        for (int r = 0; r < rows; ++r) {
#pragma unroll
            for (int i = 0; i < own_steps; ++i) out[r * own_steps + i] *= rescale[r];
            if (r % groups != int(simd)) continue;
            float sum = 0;
#pragma unroll
            for (int b = 0; b < kSpan; ++b) sum += sums_of_lanes[(b * rows + r) * 16 + lane % 16];
            running_sum[r] = metal::fma(running_sum[r], rescale[r], sum_of_half(sum));
        }
#pragma unroll
        for (int i = 0; i < own_steps; i += steps_together) {
            const int step = first_own_step + i;
            if (step >= steps_v) continue;
            const int segment = value_head.segment_of(Side::kValue, step);
            const uint offset = offset_of_tile<uint>(Side::kValue, value_bits, uint(value_head.first_step + step));
            for (int b = 0; b < kSpan; ++b) {
                if (live[b] == 0) continue;
                const int at = b * segments + segment;
                add_block<value_codes, rows, digits, steps_together>(
                    value_records.at(span + b) + offset, value_head.continues(Side::kValue, step),
                    weights + at * digits * rows * kBlockCells, units + at * rows, lane, out + i, own_steps);
            }
        }
    }

#pragma unroll
    for (int r = 0; r < rows; ++r) {
        if (r >= tile.n) continue;
        const int64_t partial = row_index(p, stream, tile.token(r), tile.head(r)) * p.n_chunks + group.y;
        if (r % groups == int(simd) && lane == 0) {
            partial_stats[2 * partial] = running_max[r];
            partial_stats[2 * partial + 1] = running_sum[r];
        }
#pragma unroll
        for (int i = 0; i < own_steps; ++i) {
            const int step = first_own_step + i;
            if (step < steps_v)
                partial_out[partial * head_dim_v + step * kStepDims + int(lane % 16)] = out[r * own_steps + i];
        }
    }
}

}  // namespace tq
