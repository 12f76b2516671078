// What a per-ISA translation unit calls must be inlined, whatever the compiler and its options: an out-of-line copy
// compiled with AVX-512 could otherwise be the one that the linker keeps for every caller. So kernels call no inline
// function of the standard library, and none of ours but TQ_INLINE ones and templates over their own Ops
// (tests/kernel_symbols.cmake).
#pragma once

#include <array>
#include <cstddef>

#define TQ_INLINE inline __attribute__((always_inline))
// The same for lambdas.
#define TQ_LAMBDA __attribute__((always_inline))
// Before a loop whose constant number of rounds, at most 64, are to be unrolled, so that arrays which it indexes live
// in registers. Sanitizers put so much code into such loops that GCC takes minutes for them.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TQ_UNROLL
#else
#define TQ_UNROLL _Pragma("GCC unroll 64")
#endif

namespace tq {

// These do what std::min and std::max do, for NaN too.
template <class T>
TQ_INLINE constexpr T smaller(T a, T b) {
    return b < a ? b : a;
}
template <class T>
TQ_INLINE constexpr T larger(T a, T b) {
    return a < b ? b : a;
}

// Does what array.data() does.
template <class T, size_t n>
TQ_INLINE const T* elements(const std::array<T, n>& array) {
    return reinterpret_cast<const T*>(&array);
}

}  // namespace tq
