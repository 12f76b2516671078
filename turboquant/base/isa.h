// Instruction sets that the kernels are compiled for, and the choice among them at run time.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "turboquant/base/status.h"

namespace tq {

// Ordered: a later one is preferred where the machine has it.
enum class Isa {
    kScalar,      // portable C++, the same algorithm with arrays for vectors
    kAvx2,        // x86-64: AVX2 + FMA + F16C
    kAvxVnni,     // kAvx2 + AVX-VNNI
    kAvx512,      // kAvx2 + AVX-512 F/BW/VL/DQ
    kAvx512Vnni,  // kAvx512 + AVX-512 VNNI
    kAvx512Vbmi,  // kAvx512Vnni + AVX-512 VBMI
    kNeon,        // AArch64: Advanced SIMD + dot product (SDOT)
    kI8mm,        // kNeon + int8 matrix multiplication (USDOT)
};

inline constexpr std::array kAllIsas{Isa::kScalar,     Isa::kAvx2,       Isa::kAvxVnni, Isa::kAvx512,
                                     Isa::kAvx512Vnni, Isa::kAvx512Vbmi, Isa::kNeon,    Isa::kI8mm};

const char* isa_name(Isa isa);

// Returns what this build and this machine both have, in order of preference (best last).
std::vector<Isa> available_isas();

// The best available one, or the one that `requested` names ("" = best).
// Error: kInvalidArgument listing the available names.
Result<Isa> select_isa(std::string_view requested);

// select_isa of the environment variable TURBOQUANT_ISA.
Result<Isa> select_isa_from_environment();

}  // namespace tq
