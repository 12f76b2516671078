#include "info.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <ggml.h>
#include <nlohmann/json.hpp>

#include "fail.h"
#include "kv_cost.h"
#include "turboquant/base/isa.h"
#include "turboquant/codec/layout.h"

namespace tq::tool {
namespace {

using Json = nlohmann::ordered_json;

constexpr Preset kSelection[] = {{8, 8}, {6, 6}, {5, 5}, {5, 4}, {4, 4}, {4, 3}, {3, 4}, {3, 3}, {2, 2}};
constexpr int64_t kDefaultContext = 4096;  // for models that name none

struct ModelReport {
    GgufModel model;
    int64_t ctx = 0;
    int64_t n_cells = 0;
    std::vector<KvCost> costs;  // f16 first
};

struct ListedPreset {
    LayerPresets presets;
    const char* alias = "";   // "fast"
};

struct Report {
    Isa isa = Isa::kScalar;
    std::vector<ListedPreset> presets;
    std::optional<ModelReport> model;
};

double mib(size_t bytes) {
    return static_cast<double>(bytes) / (1024.0 * 1024.0);
}

Result<ModelReport> make_model_report(const InfoOptions& options, const std::vector<ListedPreset>& presets) {
    Result<GgufModel> model = read_gguf_model(options.model);
    if (!model.ok()) return model.status();
    ModelReport report{std::move(model.value()), options.ctx, 0, {}};
    if (report.ctx == 0) report.ctx = report.model.context_length > 0 ? report.model.context_length : kDefaultContext;
    report.n_cells = cells_of_context(report.ctx);
    for (ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) {
        if (auto cost = ggml_kv_cost(report.model, report.n_cells, type)) report.costs.push_back(std::move(*cost));
    }
    for (const ListedPreset& p : presets) report.costs.push_back(packed_kv_cost(report.model, report.n_cells, p.presets));
    const auto unpacked = [](const KvLayer& l) { return l.n_embd_k % kStepDims != 0 || l.n_embd_v % kStepDims != 0; };
    if (std::any_of(report.model.layers.begin(), report.model.layers.end(), unpacked)) {
        report.model.notes.emplace_back("rows that are no multiple of 16 values are not packed and stay f16");
    }
    return report;
}

// ---- JSON
// -------------------------------------------------------------------------------------------------------------

Json to_json(const ModelReport& r, const std::string& file) {
    Json costs = Json::array();
    const double f16 = static_cast<double>(r.costs.front().bytes);
    for (const KvCost& cost : r.costs) {
        costs.push_back({{"type", cost.type},
                         {"bytes", cost.bytes},
                         {"mib", mib(cost.bytes)},
                         {"bits_per_value", cost.bits_per_value},
                         {"f16_ratio", f16 / static_cast<double>(cost.bytes)}});
    }
    return {{"file", file},
            {"architecture", r.model.architecture},
            {"name", r.model.name},
            {"n_layer", r.model.layers.size()},
            {"n_layer_kv", r.model.n_layer_kv()},
            {"key_length", r.model.key_length},
            {"value_length", r.model.value_length},
            {"context_length", r.model.context_length},
            {"sliding_window", r.model.sliding_window},
            {"ctx", r.ctx},
            {"n_cells", r.n_cells},
            {"kv_cache", std::move(costs)},
            {"notes", r.model.notes}};
}

Json to_json(const Report& r, const InfoOptions& options) {
    Json available = Json::array(), presets = Json::array();
    for (Isa isa : available_isas()) available.push_back(isa_name(isa));
    for (const auto& [p, alias] : r.presets) {
        presets.push_back({{"name", p.name()},
                           {"alias", alias},
                           {"key_bits", effective_bits(p.base(), Side::kKey)},
                           {"value_bits", effective_bits(p.base(), Side::kValue)},
                           {"mean_bits", effective_bits(p.base())},
                           {"exact_cells", p.exact().n_per_query()},
                           {"default", std::string_view(alias) == kDefaultPresets}});
    }
    Json json = {{"version", TQ_VERSION},
                 {"isa", {{"selected", isa_name(r.isa)}, {"available", std::move(available)}}},
                 {"presets", std::move(presets)}};
    if (r.model) json["model"] = to_json(*r.model, options.model);
    return json;
}

// ---- text
// -------------------------------------------------------------------------------------------------------------

void print_model(const ModelReport& r, const std::string& file) {
    fmt::print("\n{}\n", file);
    fmt::print("  {}{}{}, {} layers, {} with a KV cache, head size {} (K) and {} (V)\n", r.model.architecture,
               r.model.name.empty() ? "" : ", ", r.model.name, r.model.layers.size(), r.model.n_layer_kv(),
               r.model.key_length, r.model.value_length);
    fmt::print("  KV cache of one sequence of {} tokens ({} cells):\n\n", r.ctx, r.n_cells);
    size_t width = 8;
    for (const KvCost& cost : r.costs) width = std::max(width, cost.type.size());
    fmt::print("  {:{}} {:>11} {:>12} {:>10}\n", "type", width, "bits/value", "MiB", "f16 is");
    const double f16 = static_cast<double>(r.costs.front().bytes);
    for (const KvCost& cost : r.costs) {
        fmt::print("  {:{}} {:>11.3f} {:>12.2f} {:>9.2f}x\n", cost.type, width, cost.bits_per_value, mib(cost.bytes),
                   f16 / static_cast<double>(cost.bytes));
    }
    for (const std::string& note : r.model.notes) fmt::print("\n  note: {}\n", note);
}

std::string remark(const LayerPresets& presets, std::string_view alias) {
    if (alias.empty()) return presets.is_uniform() ? "" : "  most layers";
    return fmt::format("  {}{}", alias, alias == kDefaultPresets ? ", the default" : "");
}

void print_text(const Report& r, const InfoOptions& options) {
    std::string others;
    for (Isa isa : available_isas()) others += (others.empty() ? "" : ", ") + std::string(isa_name(isa));
    fmt::print("turboquant.cpp {}\n", TQ_VERSION);
    fmt::print("instruction set: {} (available: {}; TURBOQUANT_ISA chooses)\n\n", isa_name(r.isa), others);
    size_t width = 8;
    for (const ListedPreset& p : r.presets) width = std::max(width, p.presets.name().size());
    fmt::print("effective bits per value, scales included, beside the cells that stay in f16:\n\n  {:{}} {:>7} {:>7} {:>7} {:>6}\n",
               "preset", width, "K", "V", "mean", "f16");
    for (const auto& [p, alias] : r.presets) {
        fmt::print("  {:{}} {:>7.3f} {:>7.3f} {:>7.3f} {:>6}{}\n", p.name(), width, effective_bits(p.base(), Side::kKey),
                   effective_bits(p.base(), Side::kValue), effective_bits(p.base()), p.exact().n_per_query(),
                   remark(p, alias));
    }
    if (options.preset.empty()) {
        fmt::print("\n  any k<K bits>v<V bits> with 2 to 8 bits each is a preset, with c, t, +sinkN and +recentN as above\n");
    }
    if (r.model) print_model(*r.model, options.model);
}

}  // namespace

int run_info(const InfoOptions& options) {
    Report report;
    Result<Isa> isa = select_isa_from_environment();
    if (!isa.ok()) return fail(2, "TURBOQUANT_ISA: " + isa.status().message());
    report.isa = isa.value();
    if (options.preset.empty()) {
        for (const Preset& preset : kSelection) report.presets.push_back({preset});
        for (const char* name : kPresetNames) report.presets.push_back({LayerPresets::parse(name).value(), name});
    } else {
        Result<LayerPresets> preset = LayerPresets::parse(options.preset);
        if (!preset.ok()) return fail(2, "--preset: " + preset.status().message());
        report.presets.push_back({preset.value()});
    }
    if (!options.model.empty()) {
        Result<ModelReport> model = make_model_report(options, report.presets);
        if (!model.ok()) return fail(1, model.status().message());
        report.model = std::move(model.value());
    }
    if (options.json) {
        // Names come from files and need not be UTF-8.
        fmt::print("{}\n", to_json(report, options).dump(2, ' ', false, Json::error_handler_t::replace));
    } else {
        print_text(report, options);
    }
    return 0;
}

}  // namespace tq::tool
