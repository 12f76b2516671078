// A KV cache to evaluate: one of llama.cpp's own types, or a TurboQuant preset.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <ggml.h>

#include "turboquant/format/layer_presets.h"

namespace tq::tool {

inline constexpr std::string_view kCalibrated = "+cal";  // stands behind a preset's name: with a calibration file

struct CacheChoice {
    std::string name;  // the name as given: "q8_0", "q8_0/q4_0" (K/V), "k4v4", "k4v4+cal"
    ggml_type key_type = GGML_TYPE_F16, value_type = GGML_TYPE_F16;
    std::optional<LayerPresets> presets;  // they replace the types
    bool calibrated = false;

    // For people: "fast", "k4v4+cal", "q8_0"; and in words: "k4v4 centered, sinks=1 window=15".
    std::string label() const;
    std::string describe() const;

    // Error: kInvalidArgument, listing what is valid.
    static Result<CacheChoice> parse(std::string_view text);
};

}  // namespace tq::tool
