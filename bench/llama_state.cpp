// Times llama.cpp's saving and loading of a sequence's state with an f16 cache and with the plugin's, in turn. The
// preset is TURBOQUANT_KV's.
//   llama_state MODEL [TOKENS] [ROUNDS]
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tests/e2e/support/generation.h"

namespace {

using namespace tq::e2e;

double median(std::vector<double> seconds) {
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
}

template <class Fn>
double seconds_of(Fn fn) {
    const auto start = std::chrono::steady_clock::now();
    fn();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Rival {
    Rival(const std::string& path, Cache cache, uint32_t n_tokens)
        : model(load_model(path, cache)), session(model.get(), {.n_ctx = n_tokens + 64}) {
        session.decode(prompt(model.get(), n_tokens), 0);
    }
    void measure() {
        std::vector<uint8_t> state;
        save.push_back(seconds_of([&] { state = session.save(0); }));
        load.push_back(seconds_of([&] { session.restore(state, 0); }));
    }
    llama_model_ptr model;
    Session session;
    std::vector<double> save, load;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        fmt::print(stderr, "usage: llama_state MODEL [TOKENS] [ROUNDS]\n");
        return 2;
    }
    const auto n_tokens = static_cast<uint32_t>(argc > 2 ? std::atoi(argv[2]) : 1024);
    const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
    setenv("GGML_BACKEND_PATH", TQ_E2E_PLUGIN, 0);
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    Rival f16(argv[1], Cache::kF16, n_tokens), packed(argv[1], Cache::kTurboQuant, n_tokens);
    for (int round = 0; round < rounds; ++round) {
        f16.measure();
        packed.measure();
    }
    const char* preset = std::getenv("TURBOQUANT_KV");
    fmt::print(
        "{} tokens, medians of {} rounds: save f16 {:.4f} s, {} {:.4f} s ({:.1f}x); load f16 {:.4f} s, {:.4f} s "
        "({:.1f}x)\n",
        n_tokens, rounds, median(f16.save), preset ? preset : "fast", median(packed.save),
        median(packed.save) / median(f16.save), median(f16.load), median(packed.load),
        median(packed.load) / median(f16.load));
    return 0;
}
