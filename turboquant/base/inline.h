// Header functions that per-ISA translation units call must be inlined: an out-of-line copy compiled with AVX-512
// could otherwise be the one that the linker keeps for every caller.
#pragma once

#define TQ_INLINE inline __attribute__((always_inline))
// The same for lambdas: kernels unroll loops over constants with them.
#define TQ_LAMBDA __attribute__((always_inline))
