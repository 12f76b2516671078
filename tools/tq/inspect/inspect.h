// tq dump, tq distortion: a model's keys and values, and what codecs do to them.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tq::tool {

struct InspectOptions {
    std::string model, text;  // files
    int n_tokens = 1024;
    int n_threads = 0;                                                // 0: every core
    std::vector<std::string> presets{"k4cv4", "k4ctv4t", "k3ctv3t"};  // presets whose distortion is shown
    std::string out;                                                  // folder that dump writes to
    bool json = false;
};

struct InspectCommands {
    InspectOptions options;
    CLI::App *dump = nullptr, *distortion = nullptr;
};

// options must not move afterwards.
void add_inspect_commands(CLI::App& app, InspectCommands& commands);

// Results to stdout, errors to stderr. Return the exit status: 0; 1 something can't be read, written or computed; 2
// wrong usage.
int run_dump(const InspectOptions& options);
int run_distortion(const InspectOptions& options);

}  // namespace tq::tool
