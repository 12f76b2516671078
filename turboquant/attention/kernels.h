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

// Each defined in kernels_<isa>.cpp, those of this architecture.
extern const AttentionKernels kAttentionKernelsScalar;
extern const AttentionKernels kAttentionKernelsAvx2;
extern const AttentionKernels kAttentionKernelsAvxVnni;
extern const AttentionKernels kAttentionKernelsAvx512;
extern const AttentionKernels kAttentionKernelsAvx512Vnni;
extern const AttentionKernels kAttentionKernelsAvx512Vbmi;
extern const AttentionKernels kAttentionKernelsNeon;
extern const AttentionKernels kAttentionKernelsI8mm;

}  // namespace tq
