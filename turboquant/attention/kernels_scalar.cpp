#include "turboquant/attention/attention-inl.h"
#include "turboquant/simd/ops_scalar.h"

namespace tq {

const AttentionKernels kAttentionKernelsScalar = attention_impl::make_kernels<simd::OpsScalar>();

}  // namespace tq
