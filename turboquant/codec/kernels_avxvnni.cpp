#include "turboquant/codec/kernels-inl.h"
#include "turboquant/codec/kernels_isa.h"
#include "turboquant/simd/ops_avxvnni.h"

namespace tq {

const CodecKernels kCodecKernelsAvxVnni = codec_impl::make_kernels<simd::OpsAvxVnni>();

}  // namespace tq
