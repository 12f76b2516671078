// The per-ISA kernel tables, each defined in kernels_<isa>.cpp.
#pragma once

#include "turboquant/cpu/codec/kernels.h"

namespace tq {

extern const CodecKernels kCodecKernelsScalar;
extern const CodecKernels kCodecKernelsAvx2;
extern const CodecKernels kCodecKernelsAvxVnni;
extern const CodecKernels kCodecKernelsAvx512;
extern const CodecKernels kCodecKernelsAvx512Vnni;
extern const CodecKernels kCodecKernelsAvx512Vbmi;
extern const CodecKernels kCodecKernelsNeon;
extern const CodecKernels kCodecKernelsI8mm;

}  // namespace tq
