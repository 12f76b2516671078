#include "turboquant/cpu/codec/kernels-inl.h"
#include "turboquant/cpu/codec/kernels_isa.h"
#include "turboquant/cpu/simd/ops_avx2.h"

namespace tq {

const CodecKernels kCodecKernelsAvx2 = codec_impl::make_kernels<simd::OpsAvx2>();

}  // namespace tq
