#include "eval/cache_choice.h"

namespace tq::tool {
namespace {

struct NamedType {
    std::string_view name;
    ggml_type type;
};
// Those that llama.cpp takes for -ctk and -ctv.
constexpr NamedType kTypes[] = {{"f32", GGML_TYPE_F32},   {"f16", GGML_TYPE_F16},   {"bf16", GGML_TYPE_BF16},
                                {"q8_0", GGML_TYPE_Q8_0}, {"q5_1", GGML_TYPE_Q5_1}, {"q5_0", GGML_TYPE_Q5_0},
                                {"q4_1", GGML_TYPE_Q4_1}, {"q4_0", GGML_TYPE_Q4_0}, {"iq4_nl", GGML_TYPE_IQ4_NL}};

std::optional<ggml_type> type_of(std::string_view name) {
    for (const NamedType& known : kTypes) {
        if (known.name == name) return known.type;
    }
    return std::nullopt;
}

std::string type_names() {
    std::string names;
    for (const NamedType& known : kTypes) names += (names.empty() ? "" : ", ") + std::string(known.name);
    return names;
}

}  // namespace

std::string CacheChoice::label() const {
    return presets ? presets->label() + std::string(calibrated ? kCalibrated : "") : name;
}

std::string CacheChoice::describe() const {
    return presets ? presets->describe() + (calibrated ? ", calibrated" : "") : name;
}

Result<CacheChoice> CacheChoice::parse(std::string_view text) {
    CacheChoice choice;
    choice.name = text;
    const size_t slash = text.find('/');
    const auto key = type_of(text.substr(0, slash));
    const auto value = slash == std::string_view::npos ? key : type_of(text.substr(slash + 1));
    if (key && value) {
        choice.key_type = *key;
        choice.value_type = *value;
        return choice;
    }
    choice.calibrated = text.ends_with(kCalibrated);
    if (choice.calibrated) text.remove_suffix(kCalibrated.size());
    const Result<LayerPresets> presets = LayerPresets::parse(text);
    if (!presets.ok()) {
        return Status(Error::kInvalidArgument, presets.status().message() + "; nor is it one of llama.cpp's types: " +
                                                   type_names() + ", or two of them for K and V: q8_0/q4_0");
    }
    choice.presets = presets.value();
    return choice;
}

}  // namespace tq::tool
