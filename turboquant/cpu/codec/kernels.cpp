#include "turboquant/cpu/codec/kernels.h"

#include "turboquant/cpu/codec/kernels_isa.h"

namespace tq {

const CodecKernels& codec_kernels(Isa isa) {
    switch (isa) {
#ifdef TQ_HAVE_AVX2
        case Isa::kAvx2:
            return kCodecKernelsAvx2;
#endif
#ifdef TQ_HAVE_AVXVNNI
        case Isa::kAvxVnni:
            return kCodecKernelsAvxVnni;
#endif
#ifdef TQ_HAVE_AVX512
        case Isa::kAvx512:
            return kCodecKernelsAvx512;
#endif
#ifdef TQ_HAVE_AVX512VNNI
        case Isa::kAvx512Vnni:
            return kCodecKernelsAvx512Vnni;
#endif
#ifdef TQ_HAVE_AVX512VBMI
        case Isa::kAvx512Vbmi:
            return kCodecKernelsAvx512Vbmi;
#endif
#ifdef TQ_HAVE_NEON
        case Isa::kNeon:
            return kCodecKernelsNeon;
#endif
#ifdef TQ_HAVE_I8MM
        case Isa::kI8mm:
            return kCodecKernelsI8mm;
#endif
        default:
            return kCodecKernelsScalar;
    }
}

}  // namespace tq
