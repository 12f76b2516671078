#include "turboquant/codec/preset.h"

#include <optional>

namespace tq {
namespace {

bool is_width(char c) { return c >= '0' + kMinBits && c <= '0' + kMaxBits; }

struct Coding {
    int bits;
    bool trellis;
};

// Takes "k4" or "k4t" off the front of the text.
std::optional<Coding> take_coding(char side, std::string_view& text) {
    if (text.size() < 2 || text[0] != side || !is_width(text[1])) return std::nullopt;
    Coding coding{text[1] - '0', text.size() > 2 && text[2] == 't'};
    if (coding.trellis && (coding.bits < kMinTrellisBits || coding.bits > kMaxTrellisBits)) return std::nullopt;
    text.remove_prefix(coding.trellis ? 3 : 2);
    return coding;
}

std::string coding_name(char side, int bits, bool trellis) {
    return side + std::to_string(bits) + (trellis ? "t" : "");
}

}  // namespace

std::string Preset::name() const {
    return coding_name('k', key_bits, key_trellis) + coding_name('v', value_bits, value_trellis);
}

Result<Preset> Preset::parse(std::string_view text) {
    std::string_view rest = text;
    if (const auto key = take_coding('k', rest)) {
        const auto value = take_coding('v', rest);
        if (value && rest.empty()) return Preset{key->bits, value->bits, key->trellis, value->trellis};
    }
    if (text.size() == 1 && is_width(text[0])) return Preset{text[0] - '0', text[0] - '0'};
    if (text.size() == 3 && is_width(text[0]) && is_width(static_cast<char>(text[0] + 1)) && text.substr(1) == ".5") {
        return Preset{text[0] - '0', text[0] - '0' + 1};
    }
    return Status(Error::kInvalidArgument,
                  "'" + std::string(text) +
                      "' is not a TurboQuant preset; valid: k<K bits>v<V bits> with 2 to 8 bits each (k4v4, k5v3, "
                      "k8v8, ...), a t behind 3 to 5 bits for trellis codes (k4tv4t, k5v3t, ...), or bits per value 2, "
                      "2.5, 3, 3.5, ... 8 (3.5 = k3v4)");
}

}  // namespace tq
