// What an engine implements of attention (attention/plan.h says what the phases are).
#pragma once

#include "turboquant/attention/plan.h"

namespace tq {

struct AttentionKernels {
    // Bytes of a prepared query row, and of one thread's scratch memory.
    size_t (*query_bytes)(const AttentionShape& shape);
    size_t (*scratch_bytes)(const AttentionGeometry& g);
    void (*prepare)(const AttentionGeometry& g, int64_t item, const AttentionInputs& in, char* workspace);
    void (*attend)(const AttentionGeometry& g, int64_t item, int thread, const AttentionInputs& in, char* workspace);
    void (*merge)(const AttentionGeometry& g, int64_t item, const AttentionInputs& in, char* workspace);
};

}  // namespace tq
