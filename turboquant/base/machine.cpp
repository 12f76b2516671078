#include "turboquant/base/machine.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace tq {
namespace {

#if defined(__x86_64__)

// __builtin_cpu_supports does not know f16c in Clang 14 nor avxvnni in GCC 12. For both, avx2 includes that the system
// saves AVX registers.
bool cpuid_has_f16c() {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 29));
}
bool cpuid_has_avx_vnni() {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & (1u << 4));
}

bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpuid_has_f16c();
}

[[maybe_unused]] bool has_avx_vnni() {
    return has_avx2() && cpuid_has_avx_vnni();
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool has_avx512_vnni() {
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

[[maybe_unused]] bool has_avx512_vbmi() {
    return has_avx512_vnni() && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
}

#elif defined(__aarch64__) && defined(__linux__)

// Bits of the kernel's ABI (Documentation/arch/arm64/elf_hwcaps); older C libraries do not name them all.
bool has_dot_product() {
    return getauxval(AT_HWCAP) & (1ul << 20);
}
[[maybe_unused]] bool has_i8mm() {
    return has_dot_product() && (getauxval(AT_HWCAP2) & (1ul << 13));
}

#elif defined(__aarch64__) && defined(__APPLE__)

bool has_feature(const char* name) {
    int value = 0;
    size_t bytes = sizeof value;
    return sysctlbyname(name, &value, &bytes, nullptr, 0) == 0 && value != 0;
}
bool has_dot_product() {
    return has_feature("hw.optional.arm.FEAT_DotProd");
}
[[maybe_unused]] bool has_i8mm() {
    return has_dot_product() && has_feature("hw.optional.arm.FEAT_I8MM");
}

#elif defined(__aarch64__)

bool has_dot_product() {
    return false;
}
[[maybe_unused]] bool has_i8mm() {
    return false;
}

#endif

}  // namespace

bool machine_has(Isa isa) {
    switch (isa) {
        case Isa::kScalar:
            return true;
#ifdef TQ_HAVE_AVX2
        case Isa::kAvx2:
            return has_avx2();
#endif
#ifdef TQ_HAVE_AVXVNNI
        case Isa::kAvxVnni:
            return has_avx_vnni();
#endif
#ifdef TQ_HAVE_AVX512
        case Isa::kAvx512:
            return has_avx512();
#endif
#ifdef TQ_HAVE_AVX512VNNI
        case Isa::kAvx512Vnni:
            return has_avx512_vnni();
#endif
#ifdef TQ_HAVE_AVX512VBMI
        case Isa::kAvx512Vbmi:
            return has_avx512_vbmi();
#endif
#ifdef TQ_HAVE_NEON
        case Isa::kNeon:
            return has_dot_product();
#endif
#ifdef TQ_HAVE_I8MM
        case Isa::kI8mm:
            return has_i8mm();
#endif
        default:
            return false;
    }
}

}  // namespace tq
