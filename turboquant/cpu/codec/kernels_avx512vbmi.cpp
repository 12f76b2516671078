#include "turboquant/cpu/codec/kernels-inl.h"
#include "turboquant/cpu/codec/kernels_isa.h"
#include "turboquant/cpu/simd/ops_avx512.h"

namespace tq {

const CodecKernels kCodecKernelsAvx512Vbmi = codec_impl::make_kernels<simd::OpsAvx512Vbmi>();

}  // namespace tq
