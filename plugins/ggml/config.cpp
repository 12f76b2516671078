#include "config.h"

#include <cstdlib>
#include <string_view>

#include <fmt/format.h>

#include "turboquant/format/row_format.h"

namespace tq::plugin {
namespace {

const char* attention_name(AttentionMode mode) {
    return mode == AttentionMode::kFused ? "fused" : "dense";
}

Result<AttentionMode> parse_attention(std::string_view text) {
    for (AttentionMode mode : {AttentionMode::kFused, AttentionMode::kDense}) {
        if (text == attention_name(mode)) return mode;
    }
    return Status(Error::kInvalidArgument,
                  fmt::format("'{}' is not a way to compute attention; valid: fused, dense", text));
}

// Null if it is not set, or set to nothing, which is how scripts unset a variable.
const char* environment(const char* name) {
    const char* value = std::getenv(name);
    return value && *value ? value : nullptr;
}

}  // namespace

std::string Config::description() const {
    const Preset& base = presets.base();
    return fmt::format("{}, {}{:.2f} bits per value (K {:.3f}, V {:.3f}){}, {}, {} attention{}", presets.title(),
                       presets.is_uniform() ? "" : "most layers ", effective_bits(base),
                       effective_bits(base, Side::kKey), effective_bits(base, Side::kValue),
                       presets.exact().any() ? " beside sinks and window in f16" : "", isa_name(isa),
                       attention_name(attention), calibration ? ", calibrated by " + calibration->description() : "");
}

Result<Config> Config::from_environment() {
    const char* kv = environment("TURBOQUANT_KV");
    Result<LayerPresets> presets = LayerPresets::parse(kv ? kv : kDefaultPresets);
    if (!presets.ok()) return Status(presets.status().error(), "TURBOQUANT_KV: " + presets.status().message());
    Result<Isa> isa = select_isa_from_environment();
    if (!isa.ok()) return Status(isa.status().error(), "TURBOQUANT_ISA: " + isa.status().message());
    const char* text = environment("TURBOQUANT_ATTENTION");
    Result<AttentionMode> attention = parse_attention(text ? text : attention_name(AttentionMode::kFused));
    if (!attention.ok()) {
        return Status(attention.status().error(), "TURBOQUANT_ATTENTION: " + attention.status().message());
    }
    Config config{presets.value(), isa.value(), attention.value(), nullptr};
    if (const char* file = environment("TURBOQUANT_CALIBRATION")) {
        const auto calibration = Calibration::read(file);
        if (!calibration.ok()) {
            return Status(calibration.status().error(), "TURBOQUANT_CALIBRATION: " + calibration.status().message());
        }
        config.calibration = calibration.value();
    }
    return config;
}

}  // namespace tq::plugin
