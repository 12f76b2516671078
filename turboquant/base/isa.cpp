#include "turboquant/base/isa.h"

#include <cstdlib>

namespace tq {
namespace {

#if defined(__x86_64__)
bool machine_has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool machine_has_avx512() {
    return machine_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}
#endif

}  // namespace

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::kScalar: return "scalar";
        case Isa::kAvx2: return "avx2";
        case Isa::kAvx512: return "avx512";
    }
    return "unknown";
}

std::vector<Isa> available_isas() {
    std::vector<Isa> isas{Isa::kScalar};
#if defined(__x86_64__)
    if (machine_has_avx2()) isas.push_back(Isa::kAvx2);
    if (machine_has_avx512()) isas.push_back(Isa::kAvx512);
#endif
    return isas;
}

Result<Isa> select_isa(std::string_view requested) {
    const std::vector<Isa> isas = available_isas();
    if (requested.empty()) return isas.back();
    std::string names;
    for (Isa isa : isas) {
        if (requested == isa_name(isa)) return isa;
        names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
    }
    return Status(Error::kInvalidArgument,
                  "ISA '" + std::string(requested) + "' is not available here; available: " + names);
}

Result<Isa> select_isa_from_environment() {
    const char* value = std::getenv("TURBOQUANT_ISA");
    return select_isa(value ? value : "");
}

}  // namespace tq
