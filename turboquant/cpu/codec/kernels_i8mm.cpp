#include "turboquant/cpu/codec/kernels-inl.h"
#include "turboquant/cpu/codec/kernels_isa.h"
#include "turboquant/cpu/simd/ops_i8mm.h"

namespace tq {

const CodecKernels kCodecKernelsI8mm = codec_impl::make_kernels<simd::OpsI8mm>();

}  // namespace tq
