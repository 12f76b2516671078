// Where one head's codes and scales lie in a record (cpu/tile_offsets.h).
#pragma once

#include "turboquant/cpu/tile_offsets.h"
#include "turboquant/format/levels.h"
#include "turboquant/format/scale.h"
#include "turboquant/metal/numerics.h"

namespace tq {

// Heads and groups need not be aligned to each other: the part of a head that shares a scale is a segment.
struct HeadView {
    int first_step;  // of the head, in the row
    int row_steps;   // of the row

    // Says whether a segment ends with this step of the head.
    bool ends_segment(Side side, int step, int n_steps) const {
        return step + 1 == n_steps || (first_step + step + 1) % group_steps(side) == 0;
    }
    int segment_of(Side side, int step) const {
        return ((first_step + step) >> group_steps_log2(side)) - (first_step >> group_steps_log2(side));
    }
    int segments(Side side, int n_steps) const { return segment_of(side, n_steps - 1) + 1; }
};

inline HeadView head_view(int head, int head_dim, int n_head) {
    HeadView view;
    view.first_step = head * (head_dim / kStepDims);
    view.row_steps = n_head * (head_dim / kStepDims);
    return view;
}

// The byte of a plane that has a code's bits, and where they are in it (cpu/record.h, tile_position). Bits of a code are
// cut into planes of 8, 4, 2 and 1, of which it has those in its number of bits.
struct CodePlace {
    int half_of_tile, lane, unit, byte;

    int byte_of(int width, int first_bit) const {
        return 128 * first_bit + 64 * (half_of_tile * width + unit * width / 8) + 4 * lane + byte;
    }
    int shift_of(int width) const { return unit * width % 8; }
};

// dim: in its step; cell: in its block.
inline CodePlace place_of_code(Side side, int dim, int cell) {
    CodePlace place;
    place.half_of_tile = cell / 32;
    place.lane = side == Side::kKey ? cell % 16 : dim;
    place.unit = side == Side::kKey ? cell / 16 % 2 * 4 + dim / 4 : cell % 32 / 4;
    place.byte = side == Side::kKey ? dim % 4 : cell % 4;
    return place;
}

inline int code_at(device const uchar* tile, int bits, CodePlace place) {
    int code = 0, first = 0;
    for (int width = 8; width > 0; width /= 2) {
        if ((bits & width) == 0) continue;
        const int field = tile[place.byte_of(width, first)] >> place.shift_of(width);
        code |= (field & ((1 << width) - 1)) << first;
        first += width;
    }
    return code;
}

// A value's level of one cell of a record, and its scale's code. dim: of the row.
inline int level_at(device const uchar* record, Side side, int bits, int dim, int cell) {
    device const uchar* tile = record + offset_of_tile<uint>(side, bits, uint(dim / kStepDims));
    return scalar_level(bits, code_at(tile, bits, place_of_code(side, dim % kStepDims, cell)));
}
inline uchar scale_code_at(device const uchar* record, Side side, int bits, int row_steps, int dim, int cell) {
    const uint group = uint(dim / group_dims(side));
    return record[offset_of_scales<uint>(side, bits, group, uint(row_steps)) + uint(cell)];
}

}  // namespace tq
