#include "turboquant/cpu/codec/kernels-inl.h"
#include "turboquant/cpu/codec/kernels_isa.h"
#include "turboquant/cpu/simd/ops_avxvnni.h"

namespace tq {

const CodecKernels kCodecKernelsAvxVnni = codec_impl::make_kernels<simd::OpsAvxVnni>();

}  // namespace tq
