#include "turboquant/cpu/attention/attention-inl.h"
#include "turboquant/cpu/attention/kernels_isa.h"
#include "turboquant/cpu/simd/ops_neon.h"

namespace tq {

const AttentionKernels kAttentionKernelsNeon = attention_impl::make_kernels<simd::OpsNeon>();

}  // namespace tq
