#include "info.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cache_cost.h"
#include "child_process.h"
#include "fail.h"
#include "turboquant/base/isa.h"
#include "turboquant/format/row_format.h"

namespace tq::tool {
namespace {

using Json = nlohmann::ordered_json;

constexpr Preset kSelection[] = {{8, 8}, {6, 6}, {5, 5}, {5, 4}, {4, 4}, {4, 3}, {3, 4}, {3, 3}, {2, 2}};

struct NamedCost {
    std::string type, label;  // "f16", "q8_0", or a preset: its compact name, and what people call it
    CacheCost cost;
};

struct ModelReport {
    std::string architecture, name;
    int n_layer = 0, context_length = 0, sliding_window = 0;
    CacheShape shape;
    std::vector<NamedCost> costs;  // f16 first
    std::vector<std::string> notes;
};

struct Report {
    Isa isa = Isa::kScalar;
    std::vector<LayerPresets> presets;
    std::optional<ModelReport> model;
};

// "fast"; "" if no name stands for these presets.
std::string alias(const LayerPresets& presets) {
    const std::string label = presets.label();
    return label == presets.name() ? "" : label;
}

double mib(size_t bytes) {
    return static_cast<double>(bytes) / (1024.0 * 1024.0);
}

// llama.cpp's tools take it if they are not told otherwise; the size of a sliding window's cache depends on it.
constexpr int kBatch = 2048, kUbatch = 512;

Result<ModelReport> make_model_report(const InfoOptions& options, const std::vector<LayerPresets>& presets) {
    HostOptions host;
    host.model = options.model;
    host.plugin = options.plugin;
    Result<CacheCosts> costs = CacheCosts::create(host, options.ctx, kBatch, kUbatch);
    if (!costs.ok()) return costs.status();
    const llama_model* model = costs->host().model();
    ModelReport report;
    report.architecture = costs->host().metadata("general.architecture");
    report.name = costs->host().metadata("general.name");
    report.n_layer = llama_model_n_layer(model);
    report.context_length = llama_model_n_ctx_train(model);
    report.sliding_window = llama_model_n_swa(model);
    report.shape = costs->shape();
    std::vector<std::string> names{"f16", "q8_0", "q4_0"};
    for (const LayerPresets& p : presets) names.push_back(p.name());
    for (const std::string& name : names) {
        const CacheChoice choice = CacheChoice::parse(name).value();
        const Result<CacheCost> cost = costs->cost(choice);
        if (cost.ok())
            report.costs.push_back({name, choice.label(), cost.value()});
        else
            report.notes.push_back(cost.status().message());
    }
    if (report.sliding_window > 0) {
        report.notes.push_back(
            fmt::format("layers with a sliding window of {} tokens keep that and a micro-batch of {} (-ub)",
                        report.sliding_window, kUbatch));
    }
    if (report.shape.fixed_bytes > 0) {
        report.notes.push_back(fmt::format("{:.2f} MiB of recurrent states and the like are the same with every type",
                                           mib(report.shape.fixed_bytes)));
    }
    return report;
}

double f16_ratio(const ModelReport& r, const CacheCost& cost) {
    return cost.bytes == 0 ? 1 : static_cast<double>(r.costs.front().cost.bytes) / static_cast<double>(cost.bytes);
}

// ---- JSON
// -------------------------------------------------------------------------------------------------------------

Json to_json(const ModelReport& r, const std::string& file) {
    Json costs = Json::array();
    for (const auto& [type, label, cost] : r.costs) {
        costs.push_back({{"type", type},
                         {"bytes", cost.bytes},
                         {"mib", mib(cost.bytes)},
                         {"bits_per_value", cost.bits_per_value},
                         {"f16_ratio", f16_ratio(r, cost)}});
    }
    return {{"file", file},
            {"architecture", r.architecture},
            {"name", r.name},
            {"n_layer", r.n_layer},
            {"context_length", r.context_length},
            {"sliding_window", r.sliding_window},
            {"n_cells", r.shape.n_cells},
            {"n_values", r.shape.n_values},
            {"fixed_bytes", r.shape.fixed_bytes},
            {"kv_cache", std::move(costs)},
            {"notes", r.notes}};
}

Json to_json(const Report& r, const InfoOptions& options) {
    Json available = Json::array(), presets = Json::array();
    for (Isa isa : available_isas()) available.push_back(isa_name(isa));
    for (const LayerPresets& p : r.presets) {
        presets.push_back({{"name", p.name()},
                           {"alias", alias(p)},
                           {"description", p.describe()},
                           {"key_bits", effective_bits(p.base(), Side::kKey)},
                           {"value_bits", effective_bits(p.base(), Side::kValue)},
                           {"mean_bits", effective_bits(p.base())},
                           {"exact_cells", p.exact().n_per_query()},
                           {"default", alias(p) == kDefaultPresets}});
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
    fmt::print("  {}{}{}, {} layers\n", r.architecture, r.name.empty() ? "" : ", ", r.name, r.n_layer);
    fmt::print("  what llama.cpp allocates for one sequence of {} tokens:\n\n", r.shape.n_cells);
    size_t width = 8;
    for (const NamedCost& each : r.costs) width = std::max(width, each.label.size());
    fmt::print("  {:{}} {:>11} {:>12} {:>10}\n", "type", width, "bits/value", "MiB", "f16 is");
    for (const auto& [type, label, cost] : r.costs) {
        fmt::print("  {:{}} {:>11.3f} {:>12.2f} {:>9.2f}x\n", label, width, cost.bits_per_value, mib(cost.bytes),
                   f16_ratio(r, cost));
    }
    for (const std::string& note : r.notes) fmt::print("\n  note: {}\n", note);
}

// What the label does not say itself.
std::string remark(const LayerPresets& presets) {
    const std::string words = presets.describe();
    return (words == presets.label() ? "" : "  " + words) + (alias(presets) == kDefaultPresets ? ", the default" : "");
}

void print_text(const Report& r, const InfoOptions& options) {
    std::string others;
    for (Isa isa : available_isas()) others += (others.empty() ? "" : ", ") + std::string(isa_name(isa));
    fmt::print("turboquant.cpp {}\n", TQ_VERSION);
    fmt::print("instruction set: {} (available: {}; TURBOQUANT_ISA chooses)\n\n", isa_name(r.isa), others);
    size_t width = 8;
    for (const LayerPresets& p : r.presets) width = std::max(width, p.label().size());
    fmt::print(
        "effective bits per value of most layers, scales included; sinks and the window, in f16, come on top:\n\n"
        "  {:{}} {:>7} {:>7} {:>7}\n",
        "preset", width, "K", "V", "mean");
    for (const LayerPresets& p : r.presets) {
        fmt::print("  {:{}} {:>7.3f} {:>7.3f} {:>7.3f}{}\n", p.label(), width, effective_bits(p.base(), Side::kKey),
                   effective_bits(p.base(), Side::kValue), effective_bits(p.base()), remark(p));
    }
    if (options.preset.empty()) {
        fmt::print(
            "\n  any k<K bits>v<V bits> with 2 to 8 bits each is a preset: c behind K's bits centers keys, t behind 3 "
            "to 5\n"
            "  bits takes trellis codes, +sinkN and +recentN keep sinks and a window (k4ctv3t+sink1+recent15)\n");
    }
    if (r.model) print_model(*r.model, options.model);
}

int print_report(Report report, const InfoOptions& options) {
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

}  // namespace

int run_info(const InfoOptions& options) {
    Report report;
    Result<Isa> isa = select_isa_from_environment();
    if (!isa.ok()) return fail(2, "TURBOQUANT_ISA: " + isa.status().message());
    report.isa = isa.value();
    if (options.preset.empty()) {
        for (const Preset& preset : kSelection) report.presets.emplace_back(preset);
        for (const char* name : kPresetNames) report.presets.push_back(LayerPresets::parse(name).value());
    } else {
        Result<LayerPresets> preset = LayerPresets::parse(options.preset);
        if (!preset.ok()) return fail(2, "--preset: " + preset.status().message());
        report.presets.push_back(preset.value());
    }
    if (options.model.empty()) return print_report(std::move(report), options);
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(options.model, ignored))
        return fail(1, options.model + ": no such file, or not a regular one");
    const auto end = in_child_process([&] { return print_report(report, options); });
    if (!end) return fail(1, "no process could be started");
    if (!end->signal.empty())
        return fail(1, options.model + ": llama.cpp died of " + end->signal + " while it read this file");
    return end->status;
}

}  // namespace tq::tool
