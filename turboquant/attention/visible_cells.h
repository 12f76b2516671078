// Which cells a token of a causal call may see: one source for CPUs and shaders.
#pragma once

#include "turboquant/format/portable.h"

namespace tq {

// Cells [first, end), none if they are equal.
struct CellRange {
    int64_t first, end;
    TQ_FORMAT_FN bool empty() const { return first >= end; }
};

// Of a stream with n_kv cells, whose newest are its n_tokens query tokens; window 0: none.
TQ_FORMAT_FN CellRange visible_cells(bool causal, int64_t window, int64_t n_kv, int64_t n_tokens, int64_t token) {
    if (!causal) return {0, n_kv};
    const int64_t last = n_kv - n_tokens + token + 1, end = last < 0 ? 0 : last;
    return {window > 0 && end > window ? end - window : 0, end};
}

}  // namespace tq
