// Where one head's codes and scales lie in a record (cpu/tile_offsets.h).
#pragma once

#include "turboquant/cpu/tile_offsets.h"
#include "turboquant/format/levels.h"
#include "turboquant/format/scale.h"
#include "turboquant/format/trellis_path.h"
#include "turboquant/metal/code_levels.h"

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
    // Says whether the step before, maybe another head's, belongs to the same group.
    bool continues(Side side, int step) const { return (first_step + step) % group_steps(side) != 0; }
    int segments(Side side, int n_steps) const { return segment_of(side, n_steps - 1) + 1; }
};

inline HeadView head_view(int head, int head_dim, int n_head) {
    HeadView view;
    view.first_step = head * (head_dim / kStepDims);
    view.row_steps = n_head * (head_dim / kStepDims);
    return view;
}

// Where a code's bits are (cpu/record.h, tile_position).
struct CodePlace {
    int half_of_tile, lane, unit, byte;

    // The byte of a plane of this width that has them; first_bit: bits of a code in the planes before.
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

// Scalar codes are cut into planes of 8, 4, 2 and 1 bits, of which a code has those in its number of bits; trellis codes
// of 3 and 5 bits too. Those of 4 bits share a byte in turn with the next unit's: a bit of the code has this place in it.
inline int place_of_trellis4_bit(int bit, int unit) {
    return bit == 3 ? 6 + unit % 2 : 2 * bit + 1 - unit % 2;
}

inline int code_at(device const uchar* tile, int codes, CodePlace place) {
    int code = 0, first = 0;
    if (codes == kTrellisFlag + 4) {
        const int byte = tile[place.byte_of(4, 0)];
        for (int bit = 0; bit < 4; ++bit) code |= (byte >> place_of_trellis4_bit(bit, place.unit) & 1) << bit;
        return code;
    }
    for (int width = 8; width > 0; width /= 2) {
        if ((bits_of(codes) & width) == 0) continue;
        const int field = tile[place.byte_of(width, first)] >> place.shift_of(width);
        code |= (field & ((1 << width) - 1)) << first;
        first += width;
    }
    return code;
}

// The code of one cell of a record; dim: of the row.
inline int code_of(device const uchar* record, Side side, int codes, int dim, int cell) {
    device const uchar* tile = record + offset_of_tile<uint>(side, bits_of(codes), uint(dim / kStepDims));
    return code_at(tile, codes, place_of_code(side, dim % kStepDims, cell));
}

// The path bit of a dim of a chain that begins with dim `begin`; 0 before it.
inline int path_bit_of(device const uchar* record, Side side, int codes, int dim, int begin, int cell) {
    return dim < begin ? 0 : code_of(record, side, codes, dim, cell) >> (bits_of(codes) - 1);
}

inline int level_at(device const uchar* record, Side side, int codes, int dim, int cell) {
    const int code = code_of(record, side, codes, dim, cell), bits = bits_of(codes);
    if (!is_trellis_of(codes)) return scalar_level(bits, code);
    const int begin = dim / group_dims(side) * group_dims(side), path = code >> (bits - 1);
    const int state = path_bit_of(record, side, codes, dim - 1, begin, cell) |
                      path_bit_of(record, side, codes, dim - 2, begin, cell) << 1 |
                      path_bit_of(record, side, codes, dim - 3, begin, cell) << 2;
    return sorted_trellis_level(bits, 4 * (code & ((1 << (bits - 1)) - 1)) + trellis_subset(state, path));
}

inline uchar scale_code_at(device const uchar* record, Side side, int codes, int row_steps, int dim, int cell) {
    const uint group = uint(dim / group_dims(side));
    return record[offset_of_scales<uint>(side, bits_of(codes), group, uint(row_steps)) + uint(cell)];
}

}  // namespace tq
