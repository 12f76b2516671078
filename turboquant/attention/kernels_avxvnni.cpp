#include "turboquant/attention/attention-inl.h"
#include "turboquant/simd/ops_avxvnni.h"

namespace tq {

const AttentionKernels kAttentionKernelsAvxVnni = attention_impl::make_kernels<simd::OpsAvxVnni>();

}  // namespace tq
