// tq calibrate: measures a model's keys, values and queries on a text and writes channel scales for its cache.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace tq::tool {

struct CalibrateOptions {
    std::string model, text, out;  // files
    int n_ctx = 2048;              // tokens read together
    int n_tokens = 8192;
    int n_threads = 0;  // 0: every core
};

CLI::App* add_calibrate_command(CLI::App& app, CalibrateOptions& options);

// Returns the exit status: 0; 1 something can't be read, written or computed; 2 wrong usage.
int run_calibrate(const CalibrateOptions& options);

}  // namespace tq::tool
