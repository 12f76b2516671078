#include "bench/bandwidth.h"

namespace tq::tool {
namespace {

// Independent sums, so that additions never wait for one another; the compiler makes vectors of them.
constexpr size_t kLanes = 32;
// Asked for ahead, as the kernels do: the memory's own limit, not that of the processor's prefetchers.
constexpr size_t kAheadBytes = 4096;

uint64_t sum(const uint64_t* words, size_t n) {
    uint64_t lanes[kLanes] = {};
    for (size_t i = 0; i + kLanes <= n; i += kLanes) {
        const auto* ahead = reinterpret_cast<const char*>(words + i) + kAheadBytes;
        for (size_t byte = 0; byte < kLanes * sizeof(uint64_t); byte += 64) __builtin_prefetch(ahead + byte, 0, 2);
        for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += words[i + lane];
    }
    uint64_t total = 0;
    for (uint64_t lane : lanes) total += lane;
    return total;
}

}  // namespace

ReadBandwidth::ReadBandwidth(size_t bytes, ThreadTeam& team)
    : team_(team), words_(bytes / sizeof(uint64_t)), memory_(bytes), sums_(static_cast<size_t>(team.size()) * 8) {}

double ReadBandwidth::run() {
    const size_t part = words_ / static_cast<size_t>(team_.size());
    const auto* words = reinterpret_cast<const uint64_t*>(memory_.data());
    return team_.time([&](int thread) {
        volatile uint64_t& total = sums_[static_cast<size_t>(thread) * 8];  // volatile: the sum is wanted
        total = sum(words + static_cast<size_t>(thread) * part, part);
    });
}

}  // namespace tq::tool
