#include "turboquant/attention/kernels.h"

namespace tq {

const AttentionKernels& attention_kernels(Isa isa) {
    switch (isa) {
#if defined(__x86_64__)
        case Isa::kAvx2: return kAttentionKernelsAvx2;
        case Isa::kAvxVnni: return kAttentionKernelsAvxVnni;
        case Isa::kAvx512: return kAttentionKernelsAvx512;
        case Isa::kAvx512Vnni: return kAttentionKernelsAvx512Vnni;
        case Isa::kAvx512Vbmi: return kAttentionKernelsAvx512Vbmi;
#elif defined(__aarch64__)
        case Isa::kNeon: return kAttentionKernelsNeon;
        case Isa::kI8mm: return kAttentionKernelsI8mm;
#endif
        default: return kAttentionKernelsScalar;
    }
}

}  // namespace tq
