#include "eval/recommend.h"

#include <cstdio>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cache_cost.h"
#include "eval/eval.h"
#include "eval/evaluation.h"
#include "fail.h"
#include "file.h"
#include "inspect/statistics.h"
#include "turboquant/format/row_format.h"

namespace tq::tool {
namespace {

// One or two for each half bit, none of which another one beats on every model that was looked at (docs/quality.md).
constexpr const char* kCandidates[] = {"k2cv2", "k3cv2",   "k3cv3", "k3ctv3t", "k4cv3", "k4ctv3t",
                                       "k4cv4", "k4ctv4t", "k5cv4", "k5ctv4t", "k5cv5", "k5ctv5t",
                                       "k6cv5", "k6cv6",   "k7cv6", "k8cv7",   "k8cv8"};
// The largest of these that fits the budget goes beside the codes, since sinks and a window gain more than the bits
// they take (docs/quality.md).
constexpr ExactCells kWindows[] = {{4, 124}, {4, 60}, {2, 30}, {1, 15}, {0, 0}};
constexpr double kMinBudget = 2.3, kMaxBudget = 16;

constexpr const char* kFooter =
    "Evaluates the presets of up to --budget bits per value, each with the most sinks and the largest window that the\n"
    "budget allows at --ctx, as tq eval does, on your model and text. Give --ctx as long as what you read: sinks and "
    "a\n"
    "window are dear in a short context and nearly free in a long one. The least mean divergence wins; of those "
    "within\n"
    "its standard error the one of the fewest bits, of equals the one without trellis codes, which decodes faster. "
    "Where\n"
    "some layers have keys with large biases, presets are also tried with 8 bits for those layers.\n"
    "Exit status: 0; 1 if something can't be read, loaded or computed; 2 for wrong usage.";

constexpr double kClose = 0.7;  // bits below the budget that are still looked at

// Layers whose keys err so much at 4 bits that logits are off by more than this get a variant in which they have 8
// bits.
constexpr double kHardLogit = 1;
constexpr const char* kProbe = "k4cv4";
constexpr int kProbeTokens = 256;

// Takes the name of codes or of a cache.
bool has_trellis(const std::string& name) {
    return name.substr(0, name.find('+')).find('t') != std::string::npos;
}

// "+0:k8cv8+8:k8cv8", or "" if no layer is hard.
Result<std::string> remedy_of_hard_layers(const EvalOptions& options) {
    const Result<std::string> text = read_file(options.text);
    if (!text.ok()) return text.status();
    Result<Host> host = Host::create(host_options(options));
    if (!host.ok()) return host.status();
    Tokens tokens = host->tokenize(text.value());
    tokens.resize(std::min<size_t>(tokens.size(), kProbeTokens));
    const Result<Captured> captured = capture(host.value(), tokens);
    if (!captured.ok()) return captured.status();
    std::string remedy;
    for (const auto& [index, layer] : captured.value()) {
        const Result<CodecDistortion> distortion = codec_distortion(layer, Side::kKey, Preset::parse(kProbe).value());
        if (distortion.ok() && distortion->logit_rms > kHardLogit) remedy += fmt::format("+{}:k8cv8", index);
    }
    return remedy;
}

// Codes with the largest window that fits the budget; "" if none does, or if much less would be spent than there is.
Result<std::string> fit(CacheCosts& costs, const std::string& codes, double budget) {
    for (const ExactCells& window : kWindows) {
        const std::string name = codes + window.name();
        const Result<CacheCost> cost = costs.cost(CacheChoice::parse(name).value());
        if (!cost.ok()) return cost.status();
        if (cost->bits_per_value <= budget) return cost->bits_per_value > budget - kClose ? name : std::string();
    }
    return std::string();
}

// Presets that fit the budget, and the same with the remedy.
Result<std::vector<std::string>> candidates(CacheCosts& costs, const std::string& remedy, double budget, bool fast) {
    std::vector<std::string> fitting;
    for (const std::string codes : kCandidates) {
        if (fast && has_trellis(codes)) continue;
        std::vector<std::string> variants{codes};
        if (!remedy.empty() && codes != "k8cv8") variants.push_back(codes + remedy);
        for (const std::string& variant : variants) {
            const Result<std::string> name = fit(costs, variant, budget);
            if (!name.ok()) return name.status();
            if (!name->empty()) fitting.push_back(name.value());
        }
    }
    // A budget beyond what any preset takes.
    if (fitting.empty() && budget > kMinBudget) fitting.emplace_back(kCandidates[std::size(kCandidates) - 1]);
    return fitting;
}

Result<std::vector<std::string>> find_candidates(const EvalOptions& eval, double budget, bool fast) {
    if (Status status = Host::check_survival(host_options(eval)); !status.ok()) return status;
    Result<CacheCosts> costs = CacheCosts::create(host_options(eval), eval.n_ctx, eval.n_batch, eval.n_batch);
    if (!costs.ok()) return costs.status();
    const bool calibrated = !eval.calibration.empty();  // a remedy of its own
    const Result<std::string> remedy = calibrated ? Result<std::string>(std::string()) : remedy_of_hard_layers(eval);
    if (!remedy.ok()) return remedy.status();
    Result<std::vector<std::string>> names = candidates(costs.value(), remedy.value(), budget, fast);
    if (calibrated && names.ok()) {
        for (std::string& name : names.value()) name += kCalibrated;
    }
    return names;
}

}  // namespace

CLI::App* add_recommend_command(CLI::App& app, RecommendOptions& o) {
    o.eval.n_chunks = 4;
    CLI::App* command =
        app.add_subcommand("recommend", "The best preset for a budget of bits, measured on your model and text");
    command->add_option("--model,-m", o.eval.model, "GGUF file of the model")->type_name("FILE")->required();
    command->add_option("--text,-f", o.eval.text, "Text file")->type_name("FILE")->required();
    command->add_option("--budget", o.budget, "Bits per value, everything counted (default: 4.5, what q4_0 takes)")
        ->type_name("BITS")
        ->check(CLI::Range(kMinBudget, kMaxBudget));
    command->add_flag("--fast", o.fast, "Only presets that decode at full speed (no trellis codes)");
    command->add_option("--ctx,-c", o.eval.n_ctx, "Tokens of a chunk (default: 512)")->type_name("N");
    command->add_option("--chunks", o.eval.n_chunks, "Chunks at most (default: 4)")->type_name("N");
    command->add_option("--threads,-t", o.eval.n_threads, "Threads (default: every core)")->type_name("N");
    command->add_option("--calibration", o.eval.calibration, "File of tq calibrate: presets are evaluated with it")
        ->type_name("FILE");
    command->add_option("--plugin", o.eval.plugin, "The plugin (default: GGML_BACKEND_PATH, else the build's)")
        ->type_name("FILE");
    command->add_flag("--json", o.eval.json, "Print JSON");
    command->footer(kFooter);
    return command;
}

size_t choose(const std::vector<CacheReport>& caches) {
    size_t best = 0;
    for (size_t i = 1; i < caches.size(); ++i) {
        if (caches[i].divergence.mean_kld.value < caches[best].divergence.mean_kld.value) best = i;
    }
    const Estimate least = caches[best].divergence.mean_kld;
    const auto key = [](const CacheReport& c) { return std::pair(c.bits_per_value, has_trellis(c.name)); };
    for (size_t i = 0; i < caches.size(); ++i) {
        if (caches[i].divergence.mean_kld.value <= least.value + least.error && key(caches[i]) < key(caches[best]))
            best = i;
    }
    return best;
}

int run_recommend(const RecommendOptions& options) {
    EvalOptions eval = options.eval;
    if (eval.n_chunks < 1) return fail(2, "--chunks is 0; at least one is needed");
    const Result<std::vector<std::string>> names = find_candidates(eval, options.budget, options.fast);
    if (!names.ok()) return fail(1, names.status().message());
    eval.caches = names.value();
    const Result<std::vector<CacheChoice>> caches = check_eval_options(eval);
    if (!caches.ok()) return fail(2, caches.status().message());
    const Result<EvalReport> report = evaluate(eval, caches.value());
    if (!report.ok()) return fail(1, report.status().message());
    const CacheReport& chosen = report->caches[choose(report->caches)];
    if (eval.json) {
        auto json = nlohmann::ordered_json::parse(report_json(report.value()));
        json["budget"] = options.budget;
        json["recommended"] = chosen.name;
        json["recommended_description"] = chosen.description;
        fmt::print("{}\n", json.dump(2));
    } else {
        const LayerPresets presets = CacheChoice::parse(chosen.name)->presets.value();
        fmt::print("{}\nrecommended: {}, {:.3f} bits per value, mean KLD {:.5f}\n  export TURBOQUANT_KV={}{}\n",
                   report_text(report.value()), presets.title(), chosen.bits_per_value,
                   chosen.divergence.mean_kld.value, presets.label(),
                   eval.calibration.empty() ? "" : " TURBOQUANT_CALIBRATION=" + eval.calibration);
    }
    return 0;
}

}  // namespace tq::tool
