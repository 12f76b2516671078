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

// What AttentionInputs::lse is, of a running softmax: its maximum in base 2 and its sum relative to that. In double
// precision, so that it is the same float whatever the instruction set and, but for a rare rounding, the C library.
float log_sum_exp(float max, float sum);

}  // namespace tq
