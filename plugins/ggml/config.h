// What the user chose: TURBOQUANT_KV=<preset>, TURBOQUANT_ISA=<isa>.
#pragma once

#include <string>

#include "turboquant/base/isa.h"
#include "turboquant/codec/preset.h"

namespace tq::plugin {

struct Config {
    Preset preset;
    Isa isa = Isa::kScalar;

    // "k4v4, 4.19 bits per value (K 4.25, V 4.13), avx512"
    std::string description() const;

    // Error: kInvalidArgument naming the variable and listing what is valid.
    static Result<Config> from_environment();
};

}  // namespace tq::plugin
