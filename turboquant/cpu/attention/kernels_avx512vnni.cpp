#include "turboquant/cpu/attention/attention-inl.h"
#include "turboquant/cpu/attention/kernels_isa.h"
#include "turboquant/cpu/simd/ops_avx512.h"

namespace tq {

const AttentionKernels kAttentionKernelsAvx512Vnni = attention_impl::make_kernels<simd::OpsAvx512Vnni>();

}  // namespace tq
