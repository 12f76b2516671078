// The options of tq bench.
#pragma once

#include "bench/options.h"

namespace CLI {
class App;
}

namespace tq::tool {

struct BenchCommands {
    BenchOptions options;
    CLI::App *attention = nullptr, *encode = nullptr;
};

// options must not move afterwards.
void add_bench_commands(CLI::App& app, BenchCommands& commands);

}  // namespace tq::tool
