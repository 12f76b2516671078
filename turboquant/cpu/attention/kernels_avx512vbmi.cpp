#include "turboquant/cpu/attention/attention-inl.h"
#include "turboquant/cpu/attention/kernels_isa.h"
#include "turboquant/cpu/simd/ops_avx512.h"

namespace tq {

const AttentionKernels kAttentionKernelsAvx512Vbmi = attention_impl::make_kernels<simd::OpsAvx512Vbmi>();

}  // namespace tq
