#include "turboquant/codec/kernels.h"

#include "turboquant/codec/kernels_isa.h"

namespace tq {

const CodecKernels& codec_kernels(Isa isa) {
    switch (isa) {
#if defined(__x86_64__)
        case Isa::kAvx2: return kCodecKernelsAvx2;
        case Isa::kAvxVnni: return kCodecKernelsAvxVnni;
        case Isa::kAvx512: return kCodecKernelsAvx512;
        case Isa::kAvx512Vnni: return kCodecKernelsAvx512Vnni;
        case Isa::kAvx512Vbmi: return kCodecKernelsAvx512Vbmi;
#elif defined(__aarch64__)
        case Isa::kNeon: return kCodecKernelsNeon;
        case Isa::kI8mm: return kCodecKernelsI8mm;
#endif
        default: return kCodecKernelsScalar;
    }
}

}  // namespace tq
