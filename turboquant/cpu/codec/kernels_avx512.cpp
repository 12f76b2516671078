#include "turboquant/cpu/codec/kernels-inl.h"
#include "turboquant/cpu/codec/kernels_isa.h"
#include "turboquant/cpu/simd/ops_avx512.h"

namespace tq {

const CodecKernels kCodecKernelsAvx512 = codec_impl::make_kernels<simd::OpsAvx512>();

}  // namespace tq
