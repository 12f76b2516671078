// New rows into records: rotated, their groups' scales searched, their codes put into tiles. Keys may be coded around a
// center of their block, which is chosen here as cpu/codec/centers.cpp does it.
//
// A threadgroup has a slice of a stream's rows. Its SIMD groups encode a cell each; then all of them put the codes of
// these cells into the words of the record, which cells of a block share.
#include "turboquant/metal/any_encoder.h"
#include "turboquant/metal/append_shape.h"
#include "turboquant/metal/block_center.h"
#include "turboquant/metal/elements.h"
#include "turboquant/metal/rotation.h"

namespace tq {

// What is smaller than half the smallest half counts as 0, NaN too; what no half can hold is clamped.
inline float storable(float x) {
    const float large = metal::fabs(x) >= kNegligible ? x : 0.0f;
    return greater_of(less_of(large, kLargestHalf), -kLargestHalf);
}

// One cell's slice, rotated, less the center: into the SIMD group's values. row: elements to the slice's first head.
template <int head_dim>
inline void rotate_slice(constant RowsParams& p, device const uchar* rows, int64_t row, device const float* rotation,
                         threadgroup const float* center, bool centered, int n_dims, threadgroup float* values,
                         uint lane) {
    for (int head = 0; head * head_dim < n_dims; ++head) {
        float x[registers_of(head_dim)];
#pragma unroll
        for (int k = 0; k < registers_of(head_dim); ++k) {
            const bool has = Rotation<head_dim>::has(k, lane);
            x[k] = has ? storable(load_element(rows, row + head * p.rows.head + 32 * k + int(lane), p.type)) : 0.0f;
        }
        Rotation<head_dim>::apply(x, rotation + head * p.rotation_stride, kRotationFirst, lane);
#pragma unroll
        for (int k = 0; k < registers_of(head_dim); ++k) {
            if (!Rotation<head_dim>::has(k, lane)) continue;
            const int dim = head * head_dim + 32 * k + int(lane);
            values[dim] = centered ? x[k] - center[dim] : x[k];
        }
    }
}

// Grid (slices, blocks, streams), of centered keys one of y, as a block's center follows from the block before;
// append_simd_groups() SIMD groups. side: 0 keys, 1 values.
template <int head_dim, int codes_are, int side, int centered>
[[kernel]] void append(constant RowsParams& p [[buffer(kBufferParams)]],
                       device const int* lengths [[buffer(kBufferLengths)]],
                       device const uchar* rows [[buffer(kBufferRows)]],
                       device uchar* records [[buffer(kBufferRecords)]],
                       device const int* table [[buffer(kBufferTable)]],
                       device const float* rotation [[buffer(kBufferRotation)]],
                       uint3 group [[threadgroup_position_in_grid]], uint simd [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
    constexpr int bits = bits_of(codes_are);
    constexpr bool trellis = is_trellis_of(codes_are);
    constexpr Side kSide = side == 0 ? Side::kKey : Side::kValue;
    constexpr int slice_dims = dims_of_slice(kSide, head_dim), simd_groups = append_simd_groups(slice_dims);
    constexpr int threads = 32 * simd_groups, slice_groups = slice_dims / group_dims(kSide);
    threadgroup float values[simd_groups * slice_dims];
    threadgroup uchar codes[simd_groups * slice_dims];
    threadgroup uchar scales[simd_groups * slice_groups];
    threadgroup float errors[simd_groups * kMaxCandidates];
    threadgroup uchar levels[trellis ? 4 * 128 : 128];
    threadgroup uchar codes_of_levels[trellis ? 4 * 128 : 128];
    threadgroup uchar last_state[trellis ? simd_groups * kMaxCandidates : 1];
    threadgroup uchar from_high[trellis ? simd_groups * kMaxChain * kMaxCandidates : 1];
    threadgroup uchar center_levels_of[centered != 0 ? 128 : 1];
    threadgroup uchar center_codes_of[centered != 0 ? 128 : 1];
    threadgroup float center[centered != 0 ? slice_dims : 1];
    threadgroup float moved[centered != 0 ? slice_dims : 1];  // what the center has changed by, negated
    threadgroup uchar live[centered != 0 ? kBlockCells : 2];
    threadgroup int changed[centered != 0 ? simd_groups : 1];

    const int stream = int(group.z), thread_index = int(simd * 32 + lane);
    const int64_t first = lengths[2 * stream], n = lengths[2 * stream + 1];
    if (n <= 0) return;
    const int64_t last_block = (first + n - 1) / kBlockCells;
    int64_t block = first / kBlockCells + (centered != 0 ? 0 : int64_t(group.y));
    if (block > last_block) return;

    SliceWriter writer;
    writer.side = kSide;
    writer.codes_are = codes_are;
    writer.row_steps = p.n_head_kv * (head_dim / kStepDims);
    writer.first_dim = int(group.x) * slice_dims;
    writer.n_dims = metal::min(slice_dims, writer.row_steps * kStepDims - writer.first_dim);
    writer.simd_groups = simd_groups;
    writer.values = values;
    writer.codes = codes;
    writer.scales = scales;
    threadgroup float* own_errors = errors + simd * kMaxCandidates;
    const uint of_trellis = trellis ? simd : 0;  // without trellis codes these arrays have one element
    const typename EncoderOf<trellis>::Type encoder = EncoderOf<trellis>::make(
        bits, kSide == Side::kKey && bits == 2, levels, codes_of_levels, own_errors,
        last_state + of_trellis * kMaxCandidates, from_high + of_trellis * kMaxChain * kMaxCandidates);
    const Encoder of_center = EncoderOf<false>::make(kCenterBits, false, center_levels_of, center_codes_of, own_errors,
                                                     last_state, from_high);
    for (int i = thread_index; i < 128; i += threads) {
        encoder.fill(i);
        if (centered != 0) of_center.fill(i);
    }
    const int first_head = writer.first_dim / head_dim;
    device const float* slice_rotation = rotation + first_head * p.rotation_stride;
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    BlockCenter block_center;
    block_center.writer = writer;
    block_center.encoder = of_center;
    block_center.values = center;
    block_center.moved = moved;
    block_center.live = live;
    block_center.changed = changed;
    block_center.simd = simd;
    block_center.lane = lane;
    const metal::mem_flags everything = BlockCenter::everything();
    for (; block <= last_block; ++block) {
        const int64_t index = stream * p.stream_blocks + block;
        device uchar* record = records + (p.has_table != 0 ? int64_t(table[index]) : index) * p.record_bytes;
        const int begin = int(metal::max(first - block * kBlockCells, int64_t(0)));
        const int end = int(metal::min(first + n - block * kBlockCells, int64_t(kBlockCells)));
        const int first_centered = centered == 0 ? kBlockCells : block == 0 ? kUncenteredCells : 0;
        for (int cell = begin; cell < end;) {
            const bool has_center = cell >= first_centered;
            if (has_center && (cell == begin || cell == first_centered)) {
                CenteredRecord own;
                own.bytes = record;
                own.codes = codes_are;
                own.row_steps = writer.row_steps;
                if (cell == first_centered || !block_center.is_chosen(own)) {
                    const int64_t source = block == 0 ? index : index - 1;
                    CenteredRecord from = own;
                    from.bytes = records + (p.has_table != 0 ? int64_t(table[source]) : source) * p.record_bytes;
                    block_center.choose(record, own, from, block);
                    block_center.move_cells(encoder, record, own, begin, end, first_centered);
                }
                block_center.load(own);
            }
            const int limit = !has_center && first_centered < end ? first_centered : end;
            const int count = metal::min(limit - cell, simd_groups);
            if (int(simd) < count) {
                const int64_t token = block * kBlockCells + cell + int(simd) - first;
                rotate_slice<head_dim>(
                    p, rows, stream * p.rows.stream + token * p.rows.token + first_head * p.rows.head, slice_rotation,
                    center, has_center, writer.n_dims, values + int(simd) * writer.n_dims, lane);
                writer.encode(encoder, simd, lane);
            }
            threadgroup_barrier(everything);
            writer.store(record, cell, count, simd, lane);
            threadgroup_barrier(everything);
            cell += count;
        }
        if (centered == 0) return;
    }
}

}  // namespace tq
