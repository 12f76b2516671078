#include "turboquant/cpu/codec/kernels-inl.h"
#include "turboquant/cpu/codec/kernels_isa.h"
#include "turboquant/cpu/simd/ops_neon.h"

namespace tq {

const CodecKernels kCodecKernelsNeon = codec_impl::make_kernels<simd::OpsNeon>();

}  // namespace tq
