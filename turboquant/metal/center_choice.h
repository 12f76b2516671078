// How a block's center is chosen (cpu/codec/centers.cpp, docs/codec.md): value by value.
#pragma once

#include "turboquant/metal/centers.h"
#include "turboquant/metal/record_view.h"

namespace tq {

// Keys of a record, and its center.
struct CenteredRecord {
    device const uchar* bytes;
    int codes, row_steps;

    device const uchar* center_codes() const { return bytes + offset_of_center(bits_of(codes), row_steps); }
    device const uchar* center_scales() const { return center_codes() + row_steps * kStepDims * kCenterBits / 8; }

    float center(int dim) const {
        const int byte = center_codes()[dim / 8 * 4 + dim % 4], code = dim % 8 < 4 ? byte & 15 : byte >> 4;
        return scale_from_code(center_scales()[dim / group_dims(Side::kKey)]) * float(scalar_level(kCenterBits, code));
    }
    // Without the center.
    float difference(int dim, int cell) const {
        return scale_from_code(scale_code_at(bytes, Side::kKey, codes, row_steps, dim, cell)) *
               float(level_at(bytes, Side::kKey, codes, dim, cell));
    }
    // Says whether the cell holds something in dims [first, first + n): some group of theirs has a scale.
    bool is_live(int first, int n, int cell) const {
        for (int dim = first; dim < first + n; dim += group_dims(Side::kKey))
            if (scale_code_at(bytes, Side::kKey, codes, row_steps, dim, cell) != 0) return true;
        return false;
    }
};

// The mean of a dim over live cells of the record, which is of block `block` of the sequence: the center of the next.
inline float mean_of_dim(CenteredRecord record, int64_t block, int dim, threadgroup const uchar* live) {
    float sum = 0;
    int n = 0;
    for (int cell = 0; cell < kBlockCells; ++cell) {
        if (live[cell] == 0 || (block == 0 && cell == 0)) continue;  // cell 0 is a sink, unlike the others
        float value = record.difference(dim, cell);
        if (block > 0 || cell >= kUncenteredCells) value += record.center(dim);
        sum += value;
        ++n;
    }
    return n == 0 ? 0.0f : sum / float(n);
}

// A scale as mantissa * 2^exponent.
inline int scale_mantissa(int code) {
    return code < 8 ? code : 8 + code % 8;
}
inline int scale_exponent(int code) {
    return code < 8 ? -23 : code / 8 - 24;
}

// Says whether 4 |s1 c1 - s0 c0|^2 < |s1 c1|^2, where the vectors are levels c of a group and s are their scales. What
// CPUs add up in double precision is exact in integers; beyond 2^16 between the scales it cannot hold.
inline bool is_much_like(int code1, int code0, int energy1, int both, int energy0) {
    const int distance = scale_exponent(code0) - scale_exponent(code1);
    if (distance > 16 || distance < -16) return false;
    const int64_t m1 = scale_mantissa(code1), m0 = scale_mantissa(code0);
    const int up1 = distance < 0 ? -distance : 0, up0 = distance > 0 ? distance : 0;
    const int64_t s1 = m1 << up1, s0 = m0 << up0;
    return 3 * s1 * s1 * energy1 + 4 * s0 * s0 * energy0 < 8 * s1 * s0 * both;
}

// The center of block 0 from cells 0 and 1, if cell 1 holds something: of a dim, whose group has n_dims from first_dim.
inline float estimate_of_dim(CenteredRecord record, int dim, int first_dim, int n_dims) {
    int energy1 = 0, energy0 = 0, both = 0;
    for (int d = first_dim; d < first_dim + n_dims; ++d) {
        const int c0 = level_at(record.bytes, Side::kKey, record.codes, d, 0);
        const int c1 = level_at(record.bytes, Side::kKey, record.codes, d, 1);
        energy1 += c1 * c1;
        energy0 += c0 * c0;
        both += c1 * c0;
    }
    const int code0 = scale_code_at(record.bytes, Side::kKey, record.codes, record.row_steps, first_dim, 0);
    const int code1 = scale_code_at(record.bytes, Side::kKey, record.codes, record.row_steps, first_dim, 1);
    const float value = record.difference(dim, 1);
    return is_much_like(code1, code0, energy1, both, energy0) ? value : value * 0.5f;
}

}  // namespace tq
