#include "turboquant/cpu/codec/kernels-inl.h"
#include "turboquant/cpu/codec/kernels_isa.h"
#include "turboquant/cpu/simd/ops_scalar.h"

namespace tq {

const CodecKernels kCodecKernelsScalar = codec_impl::make_kernels<simd::OpsScalar>();

}  // namespace tq
