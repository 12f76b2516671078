#include "turboquant/codec/kernels.h"

#include "turboquant/codec/kernels_isa.h"

namespace tq {

const CodecKernels& codec_kernels(Isa isa) {
#if defined(__x86_64__)
    if (isa == Isa::kAvx512) return kCodecKernelsAvx512;
    if (isa == Isa::kAvx2) return kCodecKernelsAvx2;
#endif
    (void)isa;
    return kCodecKernelsScalar;
}

}  // namespace tq
