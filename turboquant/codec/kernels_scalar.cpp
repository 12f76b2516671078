#include "turboquant/codec/kernels-inl.h"
#include "turboquant/codec/kernels_isa.h"
#include "turboquant/simd/ops_scalar.h"

namespace tq {

const CodecKernels kCodecKernelsScalar = codec_impl::make_kernels<simd::OpsScalar>();

}  // namespace tq
