// Centers of keys: behind the rows of a record, 4-bit codes and scales of their own (cpu/record.h).
#pragma once

#include "turboquant/metal/half_tile.h"
#include "turboquant/metal/record_view.h"

namespace tq {

TQ_FORMAT_FN uint offset_of_center(int bits, int row_steps) {
    const int n_groups = (row_steps + group_steps(Side::kKey) - 1) / group_steps(Side::kKey);
    return uint(row_steps) * bytes_of_tile<uint>(bits) + uint(n_groups) * uint(kBlockCells);
}

// Of four dims: of each 8 dims the first four are in the low halves of 4 bytes, the others in the high halves.
inline float4 center_levels(device const uchar* codes, int dim) {
    device const uchar* four = codes + dim / 8 * 4;
    const uint shift = dim % 8 < 4 ? 0u : 4u;
    const float4 code = float4(float(four[0] >> shift & 15u), float(four[1] >> shift & 15u),
                               float(four[2] >> shift & 15u), float(four[3] >> shift & 15u));
    return Levels<kCenterBits>::of(code - middle_of(kCenterBits));
}

// The query of the head times the center of the record's block, in units of the query's scale.
template <int head_dim>
inline float dot_of_center(device const uchar* record, int bits, thread const HeadView& head,
                           threadgroup const half* query) {
    constexpr int steps = head_dim / kStepDims;
    device const uchar* codes = record + offset_of_center(bits, head.row_steps);
    device const uchar* scales = codes + head.row_steps * kStepDims * kCenterBits / 8;
    float sum = 0, products = 0;
    for (int step = 0; step < steps; ++step) {
        for (int d = 0; d < kStepDims; d += 4) {
            const float4 c = center_levels(codes, (head.first_step + step) * kStepDims + d);
            const float4 q = float4(*reinterpret_cast<threadgroup const half4*>(query + step * kStepDims + d));
            products = metal::fma(q.x, c.x, products);
            products = metal::fma(q.y, c.y, products);
            products = metal::fma(q.z, c.z, products);
            products = metal::fma(q.w, c.w, products);
        }
        if (!head.ends_segment(Side::kKey, step, steps)) continue;
        const int group = (head.first_step + step) >> group_steps_log2(Side::kKey);
        sum = metal::fma(products, scale_from_code(scales[group]), sum);
        products = 0;
    }
    return sum;
}

}  // namespace tq
