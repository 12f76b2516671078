#include "turboquant/cpu/attention/attention-inl.h"
#include "turboquant/cpu/attention/kernels_isa.h"
#include "turboquant/cpu/simd/ops_avxvnni.h"

namespace tq {

const AttentionKernels kAttentionKernelsAvxVnni = attention_impl::make_kernels<simd::OpsAvxVnni>();

}  // namespace tq
