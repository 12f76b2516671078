#include "turboquant/cpu/attention/attention-inl.h"
#include "turboquant/cpu/attention/kernels_isa.h"
#include "turboquant/cpu/simd/ops_scalar.h"

namespace tq {

const AttentionKernels kAttentionKernelsScalar = attention_impl::make_kernels<simd::OpsScalar>();

}  // namespace tq
