// tq recommend: the preset for a budget of bits, by measurement.
#pragma once

#include "eval/options.h"
#include "eval/report.h"

namespace tq::tool {

struct RecommendOptions {
    EvalOptions eval;     // how the presets that fit the budget are evaluated
    double budget = 4.5;  // bits per value, everything counted
    bool fast = false;    // scalar codes only
};

CLI::App* add_recommend_command(CLI::App& app, RecommendOptions& options);

// The choice to stdout, progress and errors to stderr. Returns the exit status: as of run_eval.
int run_recommend(const RecommendOptions& options);

// The rule: the least mean divergence wins; of those that are within its standard error the one of the fewest bits, of
// equals the one without trellis codes, which is faster. Returns an index; caches must not be empty.
size_t choose(const std::vector<CacheReport>& caches);

}  // namespace tq::tool
