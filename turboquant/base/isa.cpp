#include "turboquant/base/isa.h"

#include <cstdlib>

#include "turboquant/base/machine.h"

namespace tq {

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::kScalar:
            return "scalar";
        case Isa::kAvx2:
            return "avx2";
        case Isa::kAvxVnni:
            return "avxvnni";
        case Isa::kAvx512:
            return "avx512";
        case Isa::kAvx512Vnni:
            return "avx512vnni";
        case Isa::kAvx512Vbmi:
            return "avx512vbmi";
        case Isa::kNeon:
            return "neon";
        case Isa::kI8mm:
            return "i8mm";
    }
    return "unknown";
}

std::vector<Isa> available_isas() {
    std::vector<Isa> isas;
    for (Isa isa : kAllIsas)
        if (machine_has(isa)) isas.push_back(isa);
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
