// The path of trellis codes (format/trellis.h): which subset of levels a value may use after the codes before it.
#pragma once

#include "turboquant/format/portable.h"

namespace tq {

TQ_FORMAT_TABLE int kTrellisStates = 8;   // u1 | u2 << 1 | u3 << 2
TQ_FORMAT_TABLE int kTrellisSubsets = 4;  // 2 * w + s

TQ_FORMAT_FN int trellis_subset(int state, int path_bit) {
    const int u1 = state & 1, u2 = state >> 1 & 1, u3 = state >> 2 & 1;
    return 2 * (path_bit ^ u1 ^ u3) + u2;
}
TQ_FORMAT_FN int next_trellis_state(int state, int path_bit) {
    return (state << 1 | path_bit) & (kTrellisStates - 1);
}

}  // namespace tq
