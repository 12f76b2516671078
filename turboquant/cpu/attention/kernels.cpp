#include "turboquant/cpu/attention/kernels_isa.h"

namespace tq {

const AttentionKernels& attention_kernels(Isa isa) {
    switch (isa) {
#ifdef TQ_HAVE_AVX2
        case Isa::kAvx2:
            return kAttentionKernelsAvx2;
#endif
#ifdef TQ_HAVE_AVXVNNI
        case Isa::kAvxVnni:
            return kAttentionKernelsAvxVnni;
#endif
#ifdef TQ_HAVE_AVX512
        case Isa::kAvx512:
            return kAttentionKernelsAvx512;
#endif
#ifdef TQ_HAVE_AVX512VNNI
        case Isa::kAvx512Vnni:
            return kAttentionKernelsAvx512Vnni;
#endif
#ifdef TQ_HAVE_AVX512VBMI
        case Isa::kAvx512Vbmi:
            return kAttentionKernelsAvx512Vbmi;
#endif
#ifdef TQ_HAVE_NEON
        case Isa::kNeon:
            return kAttentionKernelsNeon;
#endif
#ifdef TQ_HAVE_I8MM
        case Isa::kI8mm:
            return kAttentionKernelsI8mm;
#endif
        default:
            return kAttentionKernelsScalar;
    }
}

}  // namespace tq
