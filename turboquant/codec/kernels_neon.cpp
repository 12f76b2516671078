#include "turboquant/codec/kernels-inl.h"
#include "turboquant/codec/kernels_isa.h"
#include "turboquant/simd/ops_neon.h"

namespace tq {

const CodecKernels kCodecKernelsNeon = codec_impl::make_kernels<simd::OpsNeon>();

}  // namespace tq
