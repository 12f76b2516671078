// Where one head's codes and scales lie in a record (cpu/tile_offsets.h).
#pragma once

#include "turboquant/cpu/tile_offsets.h"
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

}  // namespace tq
