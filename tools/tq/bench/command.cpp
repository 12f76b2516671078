#include "bench/command.h"

#include <CLI/CLI.hpp>

namespace tq::tool {
namespace {

constexpr const char* kFooter =
    "Lists are comma-separated or repeated. Every contestant has --layers independent caches, which are read in turn "
    "as a\n"
    "model reads its own; auto takes enough of them to leave the last-level cache (2 of them from 32 tokens on, where\n"
    "computing is the limit). ggml's attention does not rotate queries, ours does and includes it.\n"
    "Exit status: 0; 1 if ggml has no CPU backend, or memory is short; 2 for wrong usage.";

template <class Value>
void add_list(CLI::App* app, const char* name, std::vector<Value>& values, const char* text, const char* type) {
    app->add_option(name, values, text)->type_name(type)->delimiter(',')->allow_extra_args(false);
}

void add_options(CLI::App* app, BenchOptions& o) {
    add_list(app, "--shape", o.shapes, "heads/KV heads/head size (default: 32/8/128)", "H/KV/D");
    add_list(app, "--depth", o.depths, "Cells of the cache (default: 8192)", "N");
    add_list(app, "--batch", o.batches, "New tokens (default: 1)", "N");
    add_list(app, "--preset,-p", o.presets, "TurboQuant presets, with their sinks and window (default: fast)", "P");
    add_list(app, "--rival", o.rivals, "ggml types beside them: f16, q8_0, q4_0 (default: these), or none", "T");
    add_list(app, "--isa", o.isas, "Instruction sets of ours (default: TURBOQUANT_ISA or the best)", "X");
    add_list(app, "--threads,-t", o.threads, "Threads (default: every core)", "N");
    app->add_option("--layers", o.layers, "Caches read in turn (default: auto)")->type_name("N");
    app->add_option("--rounds", o.rounds, "Samples of each (default: 20)")->type_name("N");
    app->add_option("--max-seconds", o.max_seconds, "No new round after this time (default: 30; three are always run)")
        ->type_name("S");
    app->add_flag("--json", o.json, "Print JSON");
    app->footer(kFooter);
}

}  // namespace

void add_bench_commands(CLI::App& app, BenchCommands& commands) {
    CLI::App* bench = app.add_subcommand("bench", "Speed of attention and encoding beside ggml's own, in one process");
    bench->require_subcommand(1);
    commands.attention = bench->add_subcommand("attention", "Fused attention beside FLASH_ATTN_EXT");
    commands.encode = bench->add_subcommand("encode", "Encoding new rows of K and V beside SET_ROWS");
    add_options(commands.attention, commands.options);
    add_options(commands.encode, commands.options);
}

}  // namespace tq::tool
