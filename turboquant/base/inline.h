// Header functions that per-ISA translation units call must be inlined: an out-of-line copy compiled with AVX-512
// could otherwise be the one that the linker keeps for every caller.
#pragma once

#define TQ_INLINE inline __attribute__((always_inline))
// The same for lambdas.
#define TQ_LAMBDA __attribute__((always_inline))
// Before a loop whose constant number of rounds, at most 64, are to be unrolled, so that arrays which it indexes live in registers.
#define TQ_UNROLL _Pragma("GCC unroll 64")
