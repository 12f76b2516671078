#include "turboquant/format/layer_presets.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace tq {
namespace {

std::optional<int> number(std::string_view text, int limit) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > limit) return std::nullopt;
    return value;
}

std::optional<int> layer_number(std::string_view text) {
    return number(text, kMaxLayer);
}

}  // namespace

Result<LayerPresets::Exception> LayerPresets::parse_exception(std::string_view text) {
    const size_t colon = text.find(':');
    const std::string_view layers = text.substr(0, colon);
    const size_t dash = layers.find('-');
    const auto first = layer_number(layers.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : layer_number(layers.substr(dash + 1));
    if (colon == std::string_view::npos || !first || !last || *last < *first) {
        return Status(Error::kInvalidArgument,
                      "'+" + std::string(text) +
                          "' is not valid behind a preset; valid: +LAYER:PRESET or +FIRST-LAST:PRESET, layers from 0 "
                          "on, as in k4ctv4t+0:k8cv8+22-23:k5ctv5t; and +sinkN (sinks), +recentN (window) or "
                          "+reserveN, N up to " +
                          std::to_string(kMaxExactCells) + " cells that stay in f16, as in k2cv2+sink4+recent64");
    }
    const Result<Preset> preset = Preset::parse(text.substr(colon + 1));
    if (!preset.ok()) return preset.status();
    return Exception{*first, *last, preset.value()};
}

// Adds what stands behind a '+'.
Status LayerPresets::add(std::string_view text) {
    for (auto [word, n] : {std::pair{std::string_view("sink"), &exact_.n_sink},
                           {"recent", &exact_.n_recent},
                           {"reserve", &exact_.n_reserve},
                           {"sinks=", &exact_.n_sink},
                           {"window=", &exact_.n_recent},
                           {"reserve=", &exact_.n_reserve}}) {
        if (!text.starts_with(word)) continue;
        if (const auto cells = number(text.substr(word.size()), kMaxExactCells)) {
            *n = *cells;
            return {};
        }
    }
    const Result<Exception> exception = parse_exception(text);
    if (!exception.ok()) return exception.status();
    exceptions_.push_back(exception.value());
    return {};
}

Result<LayerPresets> LayerPresets::parse(std::string_view text) {
    const Result<Preset> base = Preset::parse(text.substr(0, text.find('+')));
    if (!base.ok()) return base.status();
    LayerPresets presets(base.value());
    presets.exact_ = exact_cells_of_name(text.substr(0, text.find('+')));
    for (size_t at = text.find('+'); at != std::string_view::npos;) {
        const size_t next = text.find('+', at + 1);
        if (Status s = presets.add(text.substr(at + 1, next == std::string_view::npos ? next : next - at - 1)); !s.ok())
            return s;
        at = next;
    }
    return presets;
}

const Preset& LayerPresets::of(int layer) const {
    const auto holds = [layer](const Exception& e) { return e.first <= layer && layer <= e.last; };
    const auto found = std::find_if(exceptions_.rbegin(), exceptions_.rend(), holds);
    return found == exceptions_.rend() ? base_ : found->preset;
}

std::string LayerPresets::Exception::layers() const {
    return std::to_string(first) + (last == first ? "" : "-" + std::to_string(last));
}

std::string LayerPresets::name() const {
    std::string name = base_.name();
    for (const Exception& e : exceptions_) name += "+" + e.layers() + ":" + e.preset.name();
    return name + exact_.name();
}

std::string LayerPresets::describe() const {
    std::string text = base_.describe() + (exact_.any() ? ", " + exact_.describe() : "");
    for (const Exception& e : exceptions_) {
        text += (e.first == e.last ? "; layer " : "; layers ") + e.layers() + ": " + e.preset.describe();
    }
    return text;
}

std::string LayerPresets::label() const {
    const std::string_view alias = is_uniform() ? alias_of(base_, exact_) : "";
    return alias.empty() ? name() : std::string(alias);
}

std::string LayerPresets::title() const {
    const std::string text = label(), words = describe();
    return text == words ? text : text + " (" + words + ")";
}

}  // namespace tq
