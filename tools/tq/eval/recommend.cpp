#include "eval/recommend.h"

#include <cstdio>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "eval/eval.h"
#include "fail.h"
#include "turboquant/codec/layout.h"

namespace tq::tool {
namespace {

// One or two for each half bit, none of which another one beats on every model that was looked at (docs/quality.md).
constexpr const char* kCandidates[] = {"k2cv2",   "k3cv2",   "k3cv3",   "k3ctv3t", "k4cv3",   "k4ctv3t", "k4cv4",
                                       "k4ctv4t", "k5cv4",   "k5ctv4t", "k5cv5",   "k5ctv5t", "k6cv5",   "k6cv6",
                                       "k7cv6",   "k8cv7",   "k8cv8"};
constexpr double kMinBudget = 2.3, kMaxBudget = 16;

constexpr const char* kFooter =
    "Evaluates the presets of up to --budget bits per value, as tq eval does, on your model and text. The least mean\n"
    "divergence wins; of those within its standard error the one of the fewest bits, of equals the one without trellis\n"
    "codes, which decodes faster.\n"
    "Exit status: 0; 1 if something can't be read, loaded or computed; 2 for wrong usage.";

constexpr double kClose = 0.7;   // bits below the budget that are still looked at

bool has_trellis(const std::string& name) { return name.find('t') != std::string::npos; }

std::vector<std::string> candidates(double budget, bool fast) {
    std::vector<std::string> fitting;
    for (const char* name : kCandidates) {
        const double bits = effective_bits(Preset::parse(name).value());
        if (bits <= budget && bits > budget - kClose && !(fast && has_trellis(name))) fitting.emplace_back(name);
    }
    // A budget beyond what any preset takes.
    if (fitting.empty() && budget > kMinBudget) fitting.emplace_back(kCandidates[std::size(kCandidates) - 1]);
    return fitting;
}

}  // namespace

CLI::App* add_recommend_command(CLI::App& app, RecommendOptions& o) {
    o.eval.n_chunks = 4;
    CLI::App* command = app.add_subcommand("recommend", "The best preset for a budget of bits, measured on your model and text");
    command->add_option("--model,-m", o.eval.model, "GGUF file of the model")->type_name("FILE")->required();
    command->add_option("--text,-f", o.eval.text, "Text file")->type_name("FILE")->required();
    command->add_option("--budget", o.budget, "Bits per value, everything counted (default: 4.25)")
        ->type_name("BITS")
        ->check(CLI::Range(kMinBudget, kMaxBudget));
    command->add_flag("--fast", o.fast, "Only presets that decode at full speed (no trellis codes)");
    command->add_option("--ctx,-c", o.eval.n_ctx, "Tokens of a chunk (default: 512)")->type_name("N");
    command->add_option("--chunks", o.eval.n_chunks, "Chunks at most (default: 4)")->type_name("N");
    command->add_option("--threads,-t", o.eval.n_threads, "Threads (default: every core)")->type_name("N");
    command->add_option("--llama", o.eval.llama, "Folder of libllama.so and ggml's libraries (default: the build's)")->type_name("DIR");
    command->add_option("--calibration", o.eval.calibration, "File of tq calibrate: presets are evaluated with it")->type_name("FILE");
    command->add_option("--plugin", o.eval.plugin, "The plugin (default: GGML_BACKEND_PATH, else the build's)")->type_name("FILE");
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
        if (caches[i].divergence.mean_kld.value <= least.value + least.error && key(caches[i]) < key(caches[best])) best = i;
    }
    return best;
}

int run_recommend(const RecommendOptions& options) {
    EvalOptions eval = options.eval;
    eval.caches = candidates(options.budget, options.fast);
    if (!eval.calibration.empty()) {
        for (std::string& name : eval.caches) name += kCalibrated;
    }
    if (eval.n_chunks < 1) return fail(2, "--chunks is 0; at least one is needed");
    const Result<std::vector<CacheChoice>> caches = check_eval_options(eval);
    if (!caches.ok()) return fail(2, caches.status().message());
    const Result<EvalReport> report = evaluate(eval, caches.value());
    if (!report.ok()) return fail(1, report.status().message());
    const CacheReport& chosen = report->caches[choose(report->caches)];
    if (eval.json) {
        auto json = nlohmann::ordered_json::parse(report_json(report.value()));
        json["budget"] = options.budget;
        json["recommended"] = chosen.name;
        fmt::print("{}\n", json.dump(2));
    } else {
        fmt::print("{}\nrecommended: {}, {:.3f} bits per value, mean KLD {:.5f}\n  export TURBOQUANT_KV={}{}\n",
                   report_text(report.value()), chosen.name, chosen.bits_per_value, chosen.divergence.mean_kld.value,
                   CacheChoice::parse(chosen.name)->presets->name(),
                   eval.calibration.empty() ? "" : " TURBOQUANT_CALIBRATION=" + eval.calibration);
    }
    return 0;
}

}  // namespace tq::tool
