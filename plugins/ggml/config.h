// Config holds what the user chose: TURBOQUANT_KV=<presets>, TURBOQUANT_CALIBRATION=<file>, TURBOQUANT_ISA=<isa>,
// TURBOQUANT_ATTENTION=fused|dense.
#pragma once

#include <memory>
#include <string>

#include "calibration.h"
#include "turboquant/base/isa.h"
#include "turboquant/format/layer_presets.h"

namespace tq::plugin {

enum class AttentionMode {
    kFused,  // integer kernels on the packed bytes; the dense path only for what they do not take
    kDense,  // rows are decoded for ggml's own float attention, always: to compare with
};

struct Config {
    LayerPresets presets;
    Isa isa = Isa::kScalar;
    AttentionMode attention = AttentionMode::kFused;
    std::shared_ptr<const Calibration> calibration;  // null: none

    // "fast (k4v4 centered, sinks=1 window=15), 4.22 bits per value (K 4.316, V 4.125) beside sinks and window in f16,
    // avx512, fused attention". Bits are those of most layers, of their codes.
    std::string description() const;

    // Error: kInvalidArgument naming the variable and listing what is valid.
    static Result<Config> from_environment();
};

}  // namespace tq::plugin
