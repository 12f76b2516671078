// tq bench: what is asked for, and what that means once checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ggml.h>

#include "bench/preset.h"
#include "bench/task.h"
#include "turboquant/base/isa.h"
#include "turboquant/format/layer_presets.h"

namespace tq::tool {

struct BenchOptions {
    std::vector<std::string> shapes{"32/8/128"};
    std::vector<int64_t> depths{8192};
    std::vector<int64_t> batches{1};
    std::vector<std::string> presets{kDefaultPresets};
    std::vector<std::string> rivals{"f16", "q8_0", "q4_0"};  // "none": ours alone
    std::vector<std::string> isas;                           // empty: TURBOQUANT_ISA or the best
    std::vector<int> threads;                                // empty: every core
    std::string layers = "auto";
    int rounds = 20;
    double max_seconds = 30;  // seconds that one case may take after its first three rounds
    bool json = false;
};

// Options with every name resolved.
struct BenchPlan {
    std::vector<HeadShape> shapes;
    std::vector<int64_t> depths, batches;
    std::vector<BenchPreset> presets;
    std::vector<ggml_type> rivals;
    std::vector<Isa> isas;
    std::vector<int> threads;
    int64_t layers = 0;  // 0: as many as it takes to leave the caches
    int rounds = 0;
    double max_seconds = 0;
};

// Error: kInvalidArgument naming the option, the value and what is allowed.
Result<BenchPlan> check_options(const BenchOptions& options, int cores);

}  // namespace tq::tool
