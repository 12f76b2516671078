// Entry points of the attention kernels, compiled once per ISA from attention-inl.h. Every ISA gives the same bits.
#pragma once

#include "turboquant/attention/plan.h"

namespace tq {

struct AttentionKernels {
    void (*prepare)(const AttentionGeometry& g, int64_t item, const AttentionInputs& in, char* workspace);
    void (*attend)(const AttentionGeometry& g, int64_t item, int thread, const AttentionInputs& in, char* workspace);
    void (*merge)(const AttentionGeometry& g, int64_t item, const AttentionInputs& in, char* workspace);
};

const AttentionKernels& attention_kernels(Isa isa);

extern const AttentionKernels kAttentionKernelsScalar;
extern const AttentionKernels kAttentionKernelsAvx2;
extern const AttentionKernels kAttentionKernelsAvx512;

}  // namespace tq
