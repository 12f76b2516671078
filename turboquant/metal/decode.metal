// Rows out of records, as they came but for quantization: for models that touch keys and values otherwise than by
// attention.
#include "turboquant/metal/append_shape.h"
#include "turboquant/metal/center_choice.h"
#include "turboquant/metal/elements.h"
#include "turboquant/metal/rotation.h"
#include "turboquant/metal/rows.h"

namespace tq {

// Grid (KV heads, kDecodeCells cells each, streams). side: 0 keys, 1 values.
template <int head_dim, int codes, int side, int centered>
[[kernel]] void decode(constant RowsParams& p [[buffer(kBufferParams)]],
                       device const int* lengths [[buffer(kBufferLengths)]],
                       device uchar* rows [[buffer(kBufferRows)]],
                       device const uchar* records [[buffer(kBufferRecords)]],
                       device const int* table [[buffer(kBufferTable)]],
                       device const float* rotation [[buffer(kBufferRotation)]],
                       uint3 group [[threadgroup_position_in_grid]], uint simd [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
    constexpr Side kSide = side == 0 ? Side::kKey : Side::kValue;
    const int stream = int(group.z), head = int(group.x);
    const int64_t i = int64_t(group.y) * kDecodeCells + simd;
    if (i >= lengths[2 * stream + 1]) return;
    const int64_t cell = lengths[2 * stream] + i, index = stream * p.stream_blocks + cell / kBlockCells;
    CenteredRecord record;
    record.bytes = records + (p.has_table != 0 ? int64_t(table[index]) : index) * p.record_bytes;
    record.codes = codes;
    record.row_steps = p.n_head_kv * (head_dim / kStepDims);
    const int in_block = int(cell % kBlockCells);
    float x[registers_of(head_dim)];
#pragma unroll
    for (int k = 0; k < registers_of(head_dim); ++k) {
        x[k] = 0;
        if (!Rotation<head_dim>::has(k, lane)) continue;
        const int dim = head * head_dim + 32 * k + int(lane);
        x[k] = scale_from_code(scale_code_at(record.bytes, kSide, codes, record.row_steps, dim, in_block)) *
               float(level_at(record.bytes, kSide, codes, dim, in_block));
        if (centered != 0 && cell >= kUncenteredCells) x[k] += record.center(dim);
    }
    Rotation<head_dim>::invert(x, rotation + head * p.rotation_stride, lane);
    const int64_t row = stream * p.rows.stream + i * p.rows.token + head * p.rows.head;
#pragma unroll
    for (int k = 0; k < registers_of(head_dim); ++k)
        if (Rotation<head_dim>::has(k, lane)) store_element(rows, row + 32 * k + int(lane), p.type, x[k]);
}

}  // namespace tq
