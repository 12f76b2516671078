// tq eval: what is asked for.
#pragma once

#include <string>
#include <vector>

#include "eval/cache_choice.h"

namespace CLI {
class App;
}

namespace tq::tool {

struct EvalOptions {
    std::string model;  // GGUF file
    std::string text;   // file
    std::vector<std::string> caches{"f16",     "q8_0",     "q5_1", "q5_0",  "q4_0", "lossless",
                                    "quality", "balanced", "fast", "small", "k4v4"};
    int n_ctx = 512;
    int n_chunks = 16;
    int n_batch = 128;
    int n_greedy = 0;         // prompts to continue greedily
    int n_recall = 0;         // passages to recall
    int n_threads = 0;        // 0: every core
    std::string plugin;       // empty: the build's
    std::string calibration;  // file for caches named ...+cal
    std::string state;        // file that results are kept in; empty: none
    bool json = false;
};

CLI::App* add_eval_command(CLI::App& app, EvalOptions& options);

// Error: kInvalidArgument naming the option, the value and what is allowed.
Result<std::vector<CacheChoice>> check_eval_options(const EvalOptions& options);

}  // namespace tq::tool
