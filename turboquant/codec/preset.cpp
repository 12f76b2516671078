#include "turboquant/codec/preset.h"

namespace tq {
namespace {

bool is_width(char c) { return c >= '0' + kMinBits && c <= '0' + kMaxBits; }

}  // namespace

Result<Preset> Preset::parse(std::string_view text) {
    if (text.size() == 4 && text[0] == 'k' && text[2] == 'v' && is_width(text[1]) && is_width(text[3])) {
        return Preset{text[1] - '0', text[3] - '0'};
    }
    if (text.size() == 1 && is_width(text[0])) return Preset{text[0] - '0', text[0] - '0'};
    if (text.size() == 3 && is_width(text[0]) && is_width(static_cast<char>(text[0] + 1)) && text.substr(1) == ".5") {
        return Preset{text[0] - '0', text[0] - '0' + 1};
    }
    return Status(Error::kInvalidArgument,
                  "'" + std::string(text) +
                      "' is not a TurboQuant preset; valid: k<K bits>v<V bits> with 2 to 8 bits each "
                      "(k4v4, k5v3, k8v8, ...), or bits per value 2, 2.5, 3, 3.5, ... 8 (3.5 = k3v4)");
}

}  // namespace tq
