// Attention of 16 or 32 query rows of one KV head to one chunk of 512 cells: what attend.metal computes, in the same bits,
// for prompts. A block's codes are decoded to threadgroup memory once for all rows, and simdgroup_matrix multiplies;
// products of integers are exact in float there too.
//
// Four SIMD groups: a half of them has the upper half of the rows; of these each has every other run of 8 cells, or of 8
// dims. So a lane has cells l, l + 16, l + 32 and l + 48 of a row, which are added up first.
#include <metal_simdgroup_matrix>

#include "turboquant/metal/attend_shape.h"
#include "turboquant/metal/centers.h"
#include "turboquant/metal/half_tile.h"
#include "turboquant/metal/record_view.h"
#include "turboquant/metal/row_tile.h"

namespace tq {

TQ_FORMAT_TABLE int kTilePitch = 64;  // halves of a row of the decoded tile

// Where a lane's elements of an 8x8 matrix are: (row, column) and (row, column + 1), as MLX has it
// (steel/gemm/mma.h, BaseMMAFrag::get_coord).
struct MatrixPlace {
    int row, column;
};
inline MatrixPlace matrix_place(uint lane) {
    const int quad = int(lane / 4);
    MatrixPlace place;
    place.row = (quad & 4) + int(lane / 2 % 4);
    place.column = (quad & 2) * 2 + int(lane % 2) * 2;
    return place;
}
// Over the four lanes that share a row.
inline float max_of_row(float x) {
    x = greater_of(x, metal::simd_shuffle_xor(x, ushort(1)));
    return greater_of(x, metal::simd_shuffle_xor(x, ushort(8)));
}

// A step of keys to tile[dim][cell], by two SIMD groups: the one with part 0 has its first 8 dims.
template <int codes>
inline void decode_key_step(device const uchar* packed, bool continues, int part, uint lane, threadgroup half* tile) {
    HalfTile<codes> values;
    values.load(Side::kKey, half_tile_place(packed, continues, lane / 16, lane % 16));
    const int cell = int(lane / 16 * 32 + lane % 16);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int cells = 0; cells < 2; ++cells) {
            const float4 c = part == 0 ? values.centroids(4 * cells + i) : values.centroids(4 * cells + 2 + i);
#pragma unroll
            for (int d = 0; d < 4; ++d) tile[(8 * part + 4 * i + d) * kTilePitch + cell + 16 * cells] = half(c[d]);
        }
    }
}

// Half a tile (32 cells) of a step of values to tile[cell][dim], by half a SIMD group.
template <int codes>
inline void decode_value_half(device const uchar* packed, bool continues, uint half_of_tile, uint lane16, threadgroup half* tile) {
    HalfTile<codes> values;
    values.load(Side::kValue, half_tile_place(packed, continues, half_of_tile, lane16));
#pragma unroll
    for (int unit = 0; unit < 8; ++unit) {
        const float4 c = values.centroids(unit);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            tile[(int(half_of_tile) * 32 + 4 * unit + i) * kTilePitch + int(lane16)] = half(c[i]);
    }
}

// Grid (row tiles of all KV heads, chunks, streams), kManySimdGroups SIMD groups each.
template <int head_dim_k, int head_dim_v, int key_codes, int value_codes, int rows, int centered>
[[kernel]] void attend_many(constant AttentionParams& p [[buffer(kBufferParams)]],
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
                            uint3 group [[threadgroup_position_in_grid]],
                            uint simd [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    constexpr int threads = 32 * kManySimdGroups, row_tiles = rows / 16;
    constexpr int key_bits = bits_of(key_codes), value_bits = bits_of(value_codes);
    constexpr int digits = attend_digits(value_bits), segments = attend_value_segments(head_dim_v);
    constexpr int steps_k = head_dim_k / kStepDims, steps_v = head_dim_v / kStepDims;
    constexpr float largest_weight = digits == 1 ? 127.0f : 127.0f * 128.0f;
    threadgroup uint4 queries_memory[rows * head_dim_k / 8];
    threadgroup uint4 decoded_memory[kBlockCells * kTilePitch / 8];
    threadgroup uint4 weights_memory[digits * rows * kBlockCells / 8];
    threadgroup float maxima[2 * rows];
    threadgroup float sums_of_lanes[rows * 16];
    threadgroup float tops[kSpan * segments * 2 * rows];
    threadgroup float centers[centered != 0 ? kChunkOfBlocks * rows : 1];
    // Arrays of vectors, for their alignment.
    threadgroup half* queries = reinterpret_cast<threadgroup half*>(queries_memory);
    threadgroup half* decoded = reinterpret_cast<threadgroup half*>(decoded_memory);
    threadgroup half* weights = reinterpret_cast<threadgroup half*>(weights_memory);

    const RowTile tile = row_tile(p, lengths, group, rows);
    if (tile.n <= 0) return;
    const BlockRange blocks = blocks_of_tile(p, tile, group.y);
    if (blocks.first >= blocks.end) return;
    const Records key_records = {keys, key_table, tile.stream * p.k_stream_blocks, p.k_record_bytes, p.has_k_table != 0};
    const Records value_records = {values, value_table, tile.stream * p.v_stream_blocks, p.v_record_bytes,
                                   p.has_v_table != 0};
    const HeadView key_head = head_view(tile.head_kv, head_dim_k, p.n_head_kv);
    const HeadView value_head = head_view(tile.head_kv, head_dim_v, p.n_head_kv);

    const int thread_index = int(simd * 32 + lane);
    for (int i = thread_index; i < rows * head_dim_k; i += threads) {
        const int row = i / head_dim_k;
        queries[i] = half(0);
        if (row < tile.n)
            queries[i] =
                prepared[row_index(p, tile.stream, tile.token(row), tile.head(row)) * head_dim_k + i % head_dim_k];
    }
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    if (centered != 0) {
        for (int i = thread_index; i < kChunkOfBlocks * rows; i += threads) {
            const int64_t block = blocks.chunk * kChunkOfBlocks + i / rows;
            centers[i] = block >= blocks.first && block < blocks.end
                             ? dot_of_center<head_dim_k>(key_records.at(block), key_bits, key_head,
                                                         queries + i % rows * head_dim_k)
                             : 0.0f;
        }
        threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    }

    const MatrixPlace place = matrix_place(lane);
    const int row_part = int(simd / 2) * row_tiles, column_part = int(simd % 2);
    const int lane_cell = 8 * column_part + place.column;  // and the next one, of each 16
    float scale_of_row[row_tiles], running_max[row_tiles], running_sum[row_tiles];
    float2 out[row_tiles][steps_v];
#pragma unroll
    for (int t = 0; t < row_tiles; ++t) {
        const int own = (row_part + t) * 8 + place.row, row = own < tile.n ? own : 0;
        scale_of_row[t] = logit_scale[row_index(p, tile.stream, tile.token(row), tile.head(row))];
        running_max[t] = -INFINITY;
        running_sum[t] = 0;
#pragma unroll
        for (int i = 0; i < steps_v; ++i) out[t][i] = float2(0);
    }

    for (int64_t span = blocks.chunk * kChunkOfBlocks; span < blocks.end; span += kSpan) {
        if (span + kSpan <= blocks.first) continue;
        float2 x[kSpan][row_tiles][4];  // logits, then probabilities
        float top[row_tiles];
#pragma unroll
        for (int t = 0; t < row_tiles; ++t) top[t] = -INFINITY;
#pragma unroll
        for (int b = 0; b < kSpan; ++b) {
            const int64_t block = span + b;
            const bool seen = block >= blocks.first && block < blocks.end;
#pragma unroll
            for (int t = 0; t < row_tiles; ++t) {
                const int row = (row_part + t) * 8 + place.row;
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    x[b][t][j] =
                        float2(centered != 0 ? centers[(block - blocks.chunk * kChunkOfBlocks) * rows + row] : 0.0f);
            }
            device const uchar* record = key_records.at(seen ? block : blocks.first);
            for (int first = 0; seen && first < steps_k;) {
                int n = 1;
                while (!key_head.ends_segment(Side::kKey, first + n - 1, steps_k)) ++n;
                threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                if (int(simd / 2) < n) {
                    const uint step = uint(key_head.first_step + first) + simd / 2;
                    decode_key_step<key_codes>(record + offset_of_tile<uint>(Side::kKey, key_bits, step),
                                               step % group_steps(Side::kKey) != 0, int(simd % 2), lane, decoded + int(simd / 2) * kStepDims * kTilePitch);
                }
                threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                metal::simdgroup_float8x8 products[row_tiles][4];
#pragma unroll
                for (int t = 0; t < row_tiles; ++t) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) products[t][j] = metal::make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
                }
                for (int k = 0; k < 2 * n; ++k) {
                    metal::simdgroup_half8x8 q[row_tiles], c;
#pragma unroll
                    for (int t = 0; t < row_tiles; ++t)
                        metal::simdgroup_load(
                            q[t], queries + (row_part + t) * 8 * head_dim_k + first * kStepDims + 8 * k, head_dim_k);
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        metal::simdgroup_load(c, decoded + 8 * k * kTilePitch + 16 * j + 8 * column_part, kTilePitch);
#pragma unroll
                        for (int t = 0; t < row_tiles; ++t)
                            metal::simdgroup_multiply_accumulate(products[t][j], q[t], c, products[t][j]);
                    }
                }
                const uint scale_group = uint(key_head.first_step + first) >> group_steps_log2(Side::kKey);
                device const uchar* scales =
                    record + offset_of_scales<uint>(Side::kKey, key_bits, scale_group, uint(key_head.row_steps)) +
                    lane_cell;
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float2 scale = float2(scale_from_code(scales[16 * j]), scale_from_code(scales[16 * j + 1]));
#pragma unroll
                    for (int t = 0; t < row_tiles; ++t)
                        x[b][t][j] = metal::fma(float2(products[t][j].thread_elements()[0],
                                                       products[t][j].thread_elements()[1]), scale, x[b][t][j]);
                }
                first += n;
            }
#pragma unroll
            for (int t = 0; t < row_tiles; ++t) {
                const int row = (row_part + t) * 8 + place.row;
#pragma unroll
                for (int j = 0; j < 4; ++j) {
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        const int cell = 16 * j + lane_cell + e;
                        if (centered != 0 && block == 0 && cell < kUncenteredCells) x[b][t][j][e] -= centers[row];
                        const float added = seen && row < tile.n ? mask_of_cell(p, mask, hidden, tile, row,
                                                                                block * kBlockCells + cell)
                                                                 : -INFINITY;
                        x[b][t][j][e] = added == -INFINITY
                                            ? -INFINITY
                                            : finish_logit(p.softcap, x[b][t][j][e], scale_of_row[t], added);
                        top[t] = greater_of(top[t], x[b][t][j][e]);
                    }
                }
            }
        }
#pragma unroll
        for (int t = 0; t < row_tiles; ++t) {
            top[t] = max_of_row(top[t]);
            if ((lane & 9) == 0) maxima[column_part * rows + (row_part + t) * 8 + place.row] = top[t];
        }
        threadgroup_barrier(metal::mem_flags::mem_threadgroup);

        float rescale[row_tiles];
        float2 sums[row_tiles];
#pragma unroll
        for (int t = 0; t < row_tiles; ++t) {
            const int row = (row_part + t) * 8 + place.row;
            const float new_max = greater_of(greater_of(maxima[row], maxima[rows + row]), running_max[t]);
            rescale[t] = exp2_of(running_max[t] - new_max);
            running_max[t] = new_max;
            sums[t] = float2(0);
#pragma unroll
            for (int b = 0; b < kSpan; ++b) {
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    x[b][t][j] = float2(exp2_of(x[b][t][j].x - new_max), exp2_of(x[b][t][j].y - new_max));
                sums[t] += (x[b][t][0] + x[b][t][1]) + (x[b][t][2] + x[b][t][3]);
            }
            sums_of_lanes[row * 16 + lane_cell] = sums[t].x;
            sums_of_lanes[row * 16 + lane_cell + 1] = sums[t].y;
#pragma unroll
            for (int i = 0; i < steps_v; ++i) out[t][i] *= rescale[t];
        }
        const int n_segments = value_head.segments(Side::kValue, steps_v);
#pragma unroll
        for (int b = 0; b < kSpan; ++b) {
            const int64_t block = span + b;
            if (block < blocks.first || block >= blocks.end) continue;
            for (int s = 0; s < n_segments; ++s) {
                const uint scale_group = (uint(value_head.first_step) >> group_steps_log2(Side::kValue)) + uint(s);
                device const uchar* scales =
                    value_records.at(block) +
                    offset_of_scales<uint>(Side::kValue, value_bits, scale_group, uint(value_head.row_steps)) + lane_cell;
#pragma unroll
                for (int t = 0; t < row_tiles; ++t) {
                    float largest = 0;
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        largest = greater_of(largest, x[b][t][j].x * scale_from_code(scales[16 * j]));
                        largest = greater_of(largest, x[b][t][j].y * scale_from_code(scales[16 * j + 1]));
                    }
                    largest = max_of_row(largest);
                    if ((lane & 9) == 0)
                        tops[((b * segments + s) * 2 + column_part) * rows + (row_part + t) * 8 + place.row] = largest;
                }
            }
        }
        threadgroup_barrier(metal::mem_flags::mem_threadgroup);

#pragma unroll
        for (int t = 0; t < row_tiles; ++t) {
            const int row = (row_part + t) * 8 + place.row;
            float2 sum = sums[t] + float2(sums_of_lanes[row * 16 + (lane_cell ^ 8)],
                                          sums_of_lanes[row * 16 + (lane_cell ^ 8) + 1]);
            sum = float2(sum.x + metal::simd_shuffle_xor(sum.x, ushort(8)), sum.y + metal::simd_shuffle_xor(sum.y, ushort(8)));
            sum = float2(sum.x + metal::simd_shuffle_xor(sum.x, ushort(1)), sum.y + metal::simd_shuffle_xor(sum.y, ushort(1)));
            running_sum[t] = metal::fma(running_sum[t], rescale[t], sum.x + sum.y);
        }
#pragma unroll
        for (int b = 0; b < kSpan; ++b) {
            const int64_t block = span + b;
            if (block < blocks.first || block >= blocks.end) continue;
            device const uchar* record = value_records.at(block);
            for (int s = 0; s < n_segments; ++s) {
                const int at = (b * segments + s) * 2 * rows;
                const int group_begin = ((value_head.first_step >> group_steps_log2(Side::kValue)) + s) *
                                        group_steps(Side::kValue);  // step of the row
                const int first = metal::max(group_begin - value_head.first_step, 0);
                device const uchar* scales =
                    record + lane_cell +
                    offset_of_scales<uint>(Side::kValue, value_bits, uint(group_begin) >> group_steps_log2(Side::kValue),
                                           uint(value_head.row_steps));
                float unit[row_tiles];
#pragma unroll
                for (int t = 0; t < row_tiles; ++t) {
                    const int row = (row_part + t) * 8 + place.row;
                    const float largest = greater_of(tops[at + row], tops[at + rows + row]);
                    const float inverse = less_of(largest_weight / largest, kLargestInverse);
                    unit[t] = largest * (1.0f / largest_weight);
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
#pragma unroll
                        for (int e = 0; e < 2; ++e) {
                            const int cell = 16 * j + lane_cell + e;
                            const float w = x[b][t][j][e] * scale_from_code(scales[16 * j + e]);
                            const float n = rounded(metal::fma(w, inverse, dither_of(cell)));
                            threadgroup half* weight = weights + row * kBlockCells + cell;
                            if (digits == 1) {
                                weight[0] = half(n);
                            } else {
                                const float high = metal::floor(n * (1.0f / 128.0f));
                                weight[0] = half(high);
                                weight[rows * kBlockCells] = half(n - 128.0f * high);
                            }
                        }
                    }
                }
                const int half_group = int(2 * simd + lane / 16);  // has a half tile of a step
                if (first + half_group / 2 < steps_v && value_head.segment_of(Side::kValue, first + half_group / 2) == s) {
                    const uint step = uint(value_head.first_step + first + half_group / 2);
                    decode_value_half<value_codes>(record + offset_of_tile<uint>(Side::kValue, value_bits, step),
                                                   step % group_steps(Side::kValue) != 0, uint(half_group % 2), lane % 16,
                                                   decoded + half_group / 2 * kStepDims);
                }
                threadgroup_barrier(metal::mem_flags::mem_threadgroup);
#pragma unroll
                for (int step = 0; step < steps_v; ++step) {
                    if (value_head.segment_of(Side::kValue, step) != s) continue;
                    metal::simdgroup_float8x8 products[digits][row_tiles];
#pragma unroll
                    for (int d = 0; d < digits; ++d) {
#pragma unroll
                        for (int t = 0; t < row_tiles; ++t)
                            products[d][t] = metal::make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
                    }
                    for (int k = 0; k < kBlockCells / 8; ++k) {
                        metal::simdgroup_half8x8 w, c;
                        metal::simdgroup_load(
                            c, decoded + 8 * k * kTilePitch + (step - first) * kStepDims + 8 * column_part, kTilePitch);
#pragma unroll
                        for (int d = 0; d < digits; ++d) {
#pragma unroll
                            for (int t = 0; t < row_tiles; ++t) {
                                metal::simdgroup_load(
                                    w, weights + (d * rows + (row_part + t) * 8) * kBlockCells + 8 * k, kBlockCells);
                                metal::simdgroup_multiply_accumulate(products[d][t], w, c, products[d][t]);
                            }
                        }
                    }
#pragma unroll
                    for (int t = 0; t < row_tiles; ++t) {
#pragma unroll
                        for (int e = 0; e < 2; ++e) {
                            float sum = products[0][t].thread_elements()[e];
                            if (digits == 2) sum = metal::fma(sum, 128.0f, products[digits - 1][t].thread_elements()[e]);
                            out[t][step][e] = metal::fma(sum, unit[t], out[t][step][e]);
                        }
                    }
                }
                threadgroup_barrier(metal::mem_flags::mem_threadgroup);
            }
        }
    }

#pragma unroll
    for (int t = 0; t < row_tiles; ++t) {
        const int row = (row_part + t) * 8 + place.row;
        if (row >= tile.n) continue;
        const int64_t partial =
            row_index(p, tile.stream, tile.token(row), tile.head(row)) * p.n_chunks + group.y;
        if (column_part == 0 && (lane & 9) == 0) {
            partial_stats[2 * partial] = running_max[t];
            partial_stats[2 * partial + 1] = running_sum[t];
        }
#pragma unroll
        for (int step = 0; step < steps_v; ++step) {
            device float* target = partial_out + partial * head_dim_v + step * kStepDims + 8 * column_part + place.column;
            target[0] = out[t][step].x;
            target[1] = out[t][step].y;
        }
    }
}

}  // namespace tq
