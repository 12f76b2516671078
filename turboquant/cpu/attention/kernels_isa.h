// The attention kernels, compiled once per ISA from attention-inl.h. Every ISA gives the same bits.
#pragma once

#include "turboquant/attention/kernels.h"
#include "turboquant/base/isa.h"

namespace tq {

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
