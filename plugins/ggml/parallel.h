// Work on the machine's threads outside a graph: what the host reads and writes of a cache when it saves or loads a
// state.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace tq::plugin {

// Threads that this process can run at once; at least 1.
inline int64_t hardware_threads() {
    return std::max(1u, std::thread::hardware_concurrency());
}

// Calls fn(item, thread) for each item in 0..n-1, on n_threads threads, the caller's among them; thread tells which,
// from 0 on. Returns when all are done. fn must not throw. Where no thread can be started the caller does the work
// alone.
template <class Fn>
void parallel_for(int64_t n, int64_t n_threads, Fn fn) {
    std::atomic<int64_t> next{0};
    const auto work = [&](int64_t thread) {
        for (int64_t item = next++; item < n; item = next++) fn(item, thread);
    };
    std::vector<std::jthread> threads;
    threads.reserve(static_cast<size_t>(n_threads));
    try {
        for (int64_t i = 1; i < std::min(n, n_threads); ++i) threads.emplace_back(work, i);
    } catch (const std::system_error&) {  // the threads that could be started do the work
    }
    work(0);
}

}  // namespace tq::plugin
