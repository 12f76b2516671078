// The cells that a token attends to as exact rows, as kPrepare leaves them in the workspace for the kernels.
#pragma once

#include <cstdint>

#include "turboquant/attention/plan.h"

namespace tq {

struct ExactList {
    struct Row {
        const uint16_t* k;  // n_embd halves each
        const uint16_t* v;
        float mask;
    };
    int64_t count;
    Row rows[];
};

TQ_INLINE ExactList* exact_list(const AttentionGeometry& g, char* workspace, int64_t row) {
    return reinterpret_cast<ExactList*>(workspace + g.exact_offset + static_cast<size_t>(row) * g.exact_bytes);
}

}  // namespace tq
