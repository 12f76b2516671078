#include "config.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string_view>

#include "turboquant/codec/layout.h"

namespace tq::plugin {
namespace {

const char* attention_name(AttentionMode mode) { return mode == AttentionMode::kFused ? "fused" : "dense"; }

Result<AttentionMode> parse_attention(std::string_view text) {
    for (AttentionMode mode : {AttentionMode::kFused, AttentionMode::kDense}) {
        if (text == attention_name(mode)) return mode;
    }
    return Status(Error::kInvalidArgument,
                  fmt::format("'{}' is not a way to compute attention; valid: fused, dense", text));
}

}  // namespace

std::string Config::description() const {
    return fmt::format("{}, {:.2f} bits per value (K {:.3f}, V {:.3f}), {}, {} attention", preset.name(),
                       effective_bits(preset), effective_bits(preset, Side::kKey),
                       effective_bits(preset, Side::kValue), isa_name(isa), attention_name(attention));
}

Result<Config> Config::from_environment() {
    const char* kv = std::getenv("TURBOQUANT_KV");
    Result<Preset> preset = Preset::parse(kv ? kv : kDefaultPreset);
    if (!preset.ok()) return Status(preset.status().error(), "TURBOQUANT_KV: " + preset.status().message());
    Result<Isa> isa = select_isa_from_environment();
    if (!isa.ok()) return Status(isa.status().error(), "TURBOQUANT_ISA: " + isa.status().message());
    const char* text = std::getenv("TURBOQUANT_ATTENTION");
    Result<AttentionMode> attention = parse_attention(text ? text : attention_name(AttentionMode::kFused));
    if (!attention.ok()) {
        return Status(attention.status().error(), "TURBOQUANT_ATTENTION: " + attention.status().message());
    }
    return Config{preset.value(), isa.value(), attention.value()};
}

}  // namespace tq::plugin
