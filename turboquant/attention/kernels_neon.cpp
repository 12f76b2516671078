#include "turboquant/attention/attention-inl.h"
#include "turboquant/simd/ops_neon.h"

namespace tq {

const AttentionKernels kAttentionKernelsNeon = attention_impl::make_kernels<simd::OpsNeon>();

}  // namespace tq
