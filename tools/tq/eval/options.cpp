#include "eval/options.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace tq::tool {
namespace {

constexpr int kMinContext = 64, kMaxContext = 1 << 20, kMaxBatch = 4096;

constexpr const char* kFooter =
    "Each chunk of --ctx tokens is read with an f16 cache and with every cache asked for, side by side; predictions of "
    "its\n"
    "second half are compared, as llama-perplexity does. f16 itself is run in batches of half the size: what differs "
    "then\n"
    "is rounding, the floor. Caches are llama.cpp's types (q8_0, or q8_0/q4_0 for K and V) and TurboQuant presets, "
    "with\n"
    "sinks and a window (k4cv4+sink1+recent15) and others for some layers (k4cv4+0:k8cv8) if you like.\n"
    "Exit status: 0; 1 if a file or the plugin can't be loaded or llama.cpp fails; 2 for wrong usage.";

Status out_of_range(const char* option, int value, int low, int high) {
    return Status(Error::kInvalidArgument, fmt::format("{} is {}; valid: {} to {}", option, value, low, high));
}

}  // namespace

CLI::App* add_eval_command(CLI::App& app, EvalOptions& o) {
    CLI::App* eval = app.add_subcommand("eval", "What KV caches do to a model's predictions, on your model and text");
    eval->add_option("--model,-m", o.model, "GGUF file of the model")->type_name("FILE")->required();
    eval->add_option("--text,-f", o.text, "Text file")->type_name("FILE")->required();
    eval->add_option("--cache", o.caches, "KV caches (default: " + fmt::format("{}", fmt::join(o.caches, ",")) + ")")
        ->type_name("C ...")
        ->delimiter(',')
        ->allow_extra_args(false);
    eval->add_option("--ctx,-c", o.n_ctx, "Tokens of a chunk (default: 512)")->type_name("N");
    eval->add_option("--chunks", o.n_chunks, "Chunks at most (default: 16)")->type_name("N");
    eval->add_option("--batch,-b", o.n_batch, "Tokens computed together (default: 128)")->type_name("N");
    eval->add_option("--greedy", o.n_greedy,
                     "Also continue this many prompts greedily and report after how many tokens of 64 the text first "
                     "differs from f16's (default: 0)")
        ->type_name("N");
    eval->add_option("--recall", o.n_recall,
                     "Also hide this many passages of random tokens in a context and report how many of their tokens "
                     "are recalled at its end (default: 0)")
        ->type_name("N");
    eval->add_option("--threads,-t", o.n_threads, "Threads (default: every core)")->type_name("N");
    eval->add_option("--plugin", o.plugin, "The plugin (default: GGML_BACKEND_PATH, else the build's)")
        ->type_name("FILE");
    eval->add_option("--calibration", o.calibration,
                     "File of tq calibrate, for presets with +cal behind them (k4ctv4t+cal)")
        ->type_name("FILE");
    eval->add_option("--state", o.state, "Keep results in this file; what is there already is not computed again")
        ->type_name("FILE");
    eval->add_flag("--json", o.json, "Print JSON");
    eval->footer(kFooter);
    return eval;
}

Result<std::vector<CacheChoice>> check_eval_options(const EvalOptions& o) {
    if (o.n_ctx < kMinContext || o.n_ctx > kMaxContext) return out_of_range("--ctx", o.n_ctx, kMinContext, kMaxContext);
    if (o.n_chunks < 0) return out_of_range("--chunks", o.n_chunks, 0, 1 << 20);
    if (o.n_batch < 2 || o.n_batch > kMaxBatch) return out_of_range("--batch", o.n_batch, 2, kMaxBatch);
    if (o.n_greedy < 0) return out_of_range("--greedy", o.n_greedy, 0, 1 << 20);
    if (o.n_recall < 0) return out_of_range("--recall", o.n_recall, 0, 1 << 20);
    if (o.n_threads < 0 || o.n_threads > 512) return out_of_range("--threads", o.n_threads, 0, 512);
    std::vector<CacheChoice> choices;
    for (const std::string& name : o.caches) {
        Result<CacheChoice> choice = CacheChoice::parse(name);
        if (!choice.ok()) return Status(Error::kInvalidArgument, "--cache: " + choice.status().message());
        for (const CacheChoice& other : choices) {
            if (other.name == name) return Status(Error::kInvalidArgument, "--cache: '" + name + "' is there twice");
        }
        if (choice->calibrated && o.calibration.empty()) {
            return Status(Error::kInvalidArgument, "--cache: '" + name + "' needs --calibration FILE");
        }
        choices.push_back(choice.value());
    }
    return choices;
}

}  // namespace tq::tool
