#include "turboquant/cpu/attention/attention-inl.h"
#include "turboquant/cpu/attention/kernels_isa.h"
#include "turboquant/cpu/simd/ops_avx2.h"

namespace tq {

const AttentionKernels kAttentionKernelsAvx2 = attention_impl::make_kernels<simd::OpsAvx2>();

}  // namespace tq
