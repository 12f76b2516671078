// Sizes of the append kernel, which host and shader both need.
#pragma once

#include "turboquant/format/coding.h"

namespace tq {

// Dims of a slice: the fewest that are whole heads and whole groups. A row is cut into slices; its last may be
// narrower.
TQ_FORMAT_FN int dims_of_slice(Side side, int head_dim) {
    int dims = head_dim;
    while (dims % group_dims(side) != 0) dims += head_dim;
    return dims;
}
// SIMD groups of a threadgroup, each of which encodes a cell at a time; what they need has to fit threadgroup memory.
TQ_FORMAT_FN int append_simd_groups(int slice_dims) {
    return slice_dims <= 512 ? 4 : 1;
}

TQ_FORMAT_TABLE int kDecodeCells = 4;  // cells of a threadgroup of decode: a SIMD group each

}  // namespace tq
