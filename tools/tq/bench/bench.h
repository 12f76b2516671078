// tq bench: TurboQuant's attention and encoder beside ggml's, in one process.
#pragma once

#include "bench/options.h"
#include "bench/report.h"

namespace tq::tool {

// Prints to stdout, errors and notices to stderr. Returns the exit status: 0; 1 ggml has no
// CPU backend, or there is no memory; 2 wrong usage.
int run_bench(BenchKind kind, const BenchOptions& options);

}  // namespace tq::tool
