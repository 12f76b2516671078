#include "config.h"

#include <fmt/format.h>

#include <cstdlib>

#include "turboquant/codec/layout.h"

namespace tq::plugin {

std::string Config::description() const {
    return fmt::format("{}, {:.2f} bits per value (K {:.3f}, V {:.3f}), {}", preset.name(), effective_bits(preset),
                       effective_bits(Side::kKey, preset.key_bits), effective_bits(Side::kValue, preset.value_bits), isa_name(isa));
}

Result<Config> Config::from_environment() {
    const char* kv = std::getenv("TURBOQUANT_KV");
    Result<Preset> preset = Preset::parse(kv ? kv : kDefaultPreset);
    if (!preset.ok()) return Status(preset.status().error(), "TURBOQUANT_KV: " + preset.status().message());
    Result<Isa> isa = select_isa_from_environment();
    if (!isa.ok()) return Status(isa.status().error(), "TURBOQUANT_ISA: " + isa.status().message());
    return Config{preset.value(), isa.value()};
}

}  // namespace tq::plugin
