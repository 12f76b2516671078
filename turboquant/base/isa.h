// Instruction sets that the kernels are compiled for, and the choice among them at run time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "turboquant/base/status.h"

namespace tq {

// Ordered: a later one is preferred where the machine has it.
enum class Isa {
    kScalar,  // portable C++, the same algorithm with arrays for vectors
    kAvx2,    // AVX2 + FMA + F16C
    kAvx512,  // AVX-512 F/BW/VL/DQ + VNNI + VBMI
};

const char* isa_name(Isa isa);

// What this build and this machine both have, in order of preference (best last).
std::vector<Isa> available_isas();

// The best available one, or the one that `requested` names ("" = best).
// Error: kInvalidArgument listing the available names.
Result<Isa> select_isa(std::string_view requested);

// select_isa of the environment variable TURBOQUANT_ISA.
Result<Isa> select_isa_from_environment();

}  // namespace tq
