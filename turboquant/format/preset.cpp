#include "turboquant/format/preset.h"

#include <optional>

namespace tq {
namespace {

bool is_width(char c) {
    return c >= '0' + kMinBits && c <= '0' + kMaxBits;
}

struct Codes {
    int bits;
    Coding coding;
};

bool take(char c, std::string_view& text) {
    if (text.empty() || text[0] != c) return false;
    text.remove_prefix(1);
    return true;
}

// Takes "k4", "k4c", "k4t" or "k4ct" off the front of the text.
std::optional<Codes> take_codes(char side, std::string_view& text) {
    if (!take(side, text) || text.empty() || !is_width(text[0])) return std::nullopt;
    const int bits = text[0] - '0';
    text.remove_prefix(1);
    const bool centered = side == 'k' && take('c', text), trellis = take('t', text);
    if (trellis && (bits < kMinTrellisBits || bits > kMaxTrellisBits)) return std::nullopt;
    return Codes{bits, coding_of(trellis, centered)};
}

struct NamedPreset {
    std::string_view name;
    Preset preset;
    ExactCells exact;
};
constexpr NamedPreset kNamedPresets[] = {
    // they have the order of kPresetNames
    {"tiny", {2, 2, Coding::kCentered, Coding::kScalar}, {4, 60}},              // k2cv2
    {"small", {3, 3, Coding::kCenteredTrellis, Coding::kTrellis}, {1, 15}},     // k3ctv3t
    {"fast", {4, 4, Coding::kCentered, Coding::kScalar}, {1, 15}},              // k4cv4
    {"balanced", {4, 4, Coding::kCenteredTrellis, Coding::kTrellis}, {1, 15}},  // k4ctv4t
    {"quality", {5, 5, Coding::kCenteredTrellis, Coding::kTrellis}, {1, 15}},   // k5ctv5t
    {"lossless", {8, 8, Coding::kCentered, Coding::kScalar}, {0, 0}},           // k8cv8
};

const NamedPreset* find_name(std::string_view text) {
    for (const NamedPreset& named : kNamedPresets) {
        if (text == named.name) return &named;
    }
    return nullptr;
}

// "small (k3v3 centered trellis, sinks=1 window=15), ..."
std::string all_names() {
    std::string names;
    for (const NamedPreset& named : kNamedPresets) {
        names += (names.empty() ? "" : ", ") + std::string(named.name) + " (" + named.preset.describe() +
                 (named.exact.any() ? ", " + named.exact.describe() : "") + ")";
    }
    return names;
}

std::string codes_name(char side, int bits, Coding coding) {
    return side + std::to_string(bits) + (is_centered(coding) ? "c" : "") + (is_trellis(coding) ? "t" : "");
}

std::string words_of(Coding coding) {
    return std::string(is_centered(coding) ? " centered" : "") + (is_trellis(coding) ? " trellis" : "");
}

}  // namespace

std::string Preset::name() const {
    return codes_name('k', key_bits, key_coding) + codes_name('v', value_bits, value_coding);
}

std::string Preset::describe() const {
    const std::string key = "k" + std::to_string(key_bits), value = "v" + std::to_string(value_bits);
    if (is_trellis(key_coding) == is_trellis(value_coding)) return key + value + words_of(key_coding);
    return key + words_of(key_coding) + ", " + value + words_of(value_coding);
}

Result<Preset> Preset::parse(std::string_view text) {
    if (const NamedPreset* named = find_name(text)) return named->preset;
    std::string_view rest = text;
    if (const auto key = take_codes('k', rest)) {
        const auto value = take_codes('v', rest);
        if (value && rest.empty()) return Preset{key->bits, value->bits, key->coding, value->coding};
    }
    if (text.size() == 1 && is_width(text[0])) return Preset{text[0] - '0', text[0] - '0'};
    if (text.size() == 3 && is_width(text[0]) && is_width(static_cast<char>(text[0] + 1)) && text.substr(1) == ".5") {
        return Preset{text[0] - '0', text[0] - '0' + 1};
    }
    return Status(Error::kInvalidArgument,
                  "'" + std::string(text) +
                      "' is not a TurboQuant preset; valid: k<K bits>v<V bits> with 2 to 8 bits each (k4v4, k5v3, "
                      "k8v8, ...), behind the bits c for centered keys (k4cv4) and t for trellis codes of 3 to 5 bits "
                      "(k4tv4t, k4ctv4t, ...), or bits per value 2, 2.5, 3, 3.5, ... 8 (3.5 = k3v4), or " +
                      all_names());
}

ExactCells exact_cells_of_name(std::string_view text) {
    const NamedPreset* named = find_name(text);
    return named ? named->exact : ExactCells{};
}

std::string_view alias_of(const Preset& codes, const ExactCells& exact) {
    for (const NamedPreset& named : kNamedPresets) {
        if (codes == named.preset && exact == named.exact) return named.name;
    }
    return "";
}

}  // namespace tq
