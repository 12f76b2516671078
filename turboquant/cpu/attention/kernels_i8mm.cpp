#include "turboquant/cpu/attention/attention-inl.h"
#include "turboquant/cpu/attention/kernels_isa.h"
#include "turboquant/cpu/simd/ops_i8mm.h"

namespace tq {

const AttentionKernels kAttentionKernelsI8mm = attention_impl::make_kernels<simd::OpsI8mm>();

}  // namespace tq
