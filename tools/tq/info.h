// tq info: version, instruction sets, presets, and what a model's KV cache would cost.
#pragma once

#include <cstdint>
#include <string>

namespace tq::tool {

struct InfoOptions {
    std::string model;   // GGUF file; empty: none
    std::string plugin;  // empty: GGML_BACKEND_PATH, else the build's
    std::string preset;  // empty: a selection
    int64_t ctx = 0;     // tokens; 0: the model's training context
    bool json = false;
};

// Prints to stdout, errors to stderr. Returns the exit status: 0; 1 the model can't be read; 2 wrong usage.
int run_info(const InfoOptions& options);

}  // namespace tq::tool
