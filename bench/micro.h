// The micro-benchmarks share this. Names are part/isa/what, so that --benchmark_filter selects by any of them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "turboquant/base/isa.h"

namespace tq::bench {

void register_attention();
void register_cache();
void register_codec();

inline std::vector<float> gaussian(int64_t n, uint32_t seed) {
    std::mt19937 bits(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) value = normal(bits);
    return values;
}

// The arguments here are known to be good: a failure is a bug in the benchmark.
template <class T>
T must(Result<T> result) {
    if (!result.ok()) std::abort();
    return std::move(result.value());
}

// Registers fn(state) for every ISA of this machine as "part/isa/what".
template <class Fn>
void for_each_isa(const std::string& part, const std::string& what, Fn fn) {
    for (Isa isa : available_isas()) {
        const std::string name = part + "/" + isa_name(isa) + "/" + what;
        benchmark::RegisterBenchmark(name.c_str(), [isa, fn](benchmark::State& state) { fn(state, isa); });
    }
}

}  // namespace tq::bench
