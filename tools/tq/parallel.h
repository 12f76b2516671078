// Independent pieces of work on several threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace tq::tool {

// fn(i) for i in [0, n), each once, by whichever of n_threads threads is free. fn must not throw, and what it writes
// must belong to i alone: then the result is the same for any number of threads.
template <class Fn>
void parallel_for(size_t n, int n_threads, Fn fn) {
    std::atomic<size_t> next{0};
    const auto work = [&] {
        for (size_t i = next++; i < n; i = next++) fn(i);
    };
    std::vector<std::thread> threads;
    for (int t = 1; t < n_threads && static_cast<size_t>(t) < n; ++t) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
}

}  // namespace tq::tool
