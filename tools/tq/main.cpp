// tq: the command line tool of turboquant.cpp.
#include <cstdint>

#include <CLI/CLI.hpp>

#include "bench/bench.h"
#include "bench/command.h"
#include "calibrate/calibrate.h"
#include "eval/eval.h"
#include "eval/recommend.h"
#include "info.h"
#include "inspect/inspect.h"

namespace {

constexpr const char* kFooter =
    "Presets: tiny, small, fast (the default), balanced, quality, lossless; or k<K bits>v<V bits> with 2 to 8 bits "
    "each\n"
    "(k4v4, k5v3), or bits per value: 2, 2.5, 3, ... 8 (3.5 = k3v4). c behind K's bits centers keys, t behind 3 to 5 "
    "bits\n"
    "takes trellis codes (k4ctv4t). +sinkN keeps the first N tokens (sinks) and +recentN the newest N before a query "
    "(its\n"
    "window) in f16; +LAYER:PRESET gives a layer another preset.\n"
    "Exit status: 0; 1 if something can't be read, loaded or computed; 2 for wrong usage.";

constexpr int64_t kMaxContext = int64_t{1} << 31;

// 0 where the user asked for --help or --version.
int usage_status(int cli_status) {
    return cli_status == 0 ? 0 : 2;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("TurboQuant KV-cache compression", "tq");
    app.set_version_flag("--version", "tq " TQ_VERSION);
    app.footer(kFooter);
    app.require_subcommand(1);

    tq::tool::InfoOptions info;
    CLI::App* info_command =
        app.add_subcommand("info", "Instruction sets, presets, and what a model's KV cache would cost");
    CLI::Option* model =
        info_command->add_option("--model,-m", info.model, "GGUF file of the model")->type_name("FILE");
    info_command->add_option("--ctx,-c", info.ctx, "Tokens of context (default: the model's training context)")
        ->type_name("N")
        ->check(CLI::Range(int64_t{1}, kMaxContext))
        ->needs(model);
    info_command->add_option("--preset,-p", info.preset, "Only this preset (default: a selection)")->type_name("P");
    info_command->add_option("--plugin", info.plugin, "The plugin (default: GGML_BACKEND_PATH, else the build's)")
        ->type_name("FILE")
        ->needs(model);
    info_command->add_flag("--json", info.json, "Print JSON");
    info_command->footer(kFooter);

    tq::tool::BenchCommands bench;
    tq::tool::add_bench_commands(app, bench);

    tq::tool::EvalOptions eval;
    const CLI::App* eval_command = tq::tool::add_eval_command(app, eval);

    tq::tool::RecommendOptions recommend;
    const CLI::App* recommend_command = tq::tool::add_recommend_command(app, recommend);

    tq::tool::CalibrateOptions calibrate;
    const CLI::App* calibrate_command = tq::tool::add_calibrate_command(app, calibrate);

    tq::tool::InspectCommands inspect;
    tq::tool::add_inspect_commands(app, inspect);

    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return usage_status(app.exit(error));
    }
    if (*bench.attention) return tq::tool::run_bench(tq::tool::BenchKind::kAttention, bench.options);
    if (*bench.encode) return tq::tool::run_bench(tq::tool::BenchKind::kEncode, bench.options);
    if (*eval_command) return tq::tool::run_eval(eval);
    if (*recommend_command) return tq::tool::run_recommend(recommend);
    if (*calibrate_command) return tq::tool::run_calibrate(calibrate);
    if (*inspect.dump) return tq::tool::run_dump(inspect.options);
    if (*inspect.distortion) return tq::tool::run_distortion(inspect.options);
    return tq::tool::run_info(info);
}
