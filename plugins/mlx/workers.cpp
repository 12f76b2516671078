#include "workers.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <future>
#include <thread>
#include <vector>

#include <mlx/threadpool.h>

namespace tq::mlx_plugin {
namespace {

constexpr int kMaxWorkers = 256;

int choose_n_workers() {
    const char* wanted = std::getenv("TURBOQUANT_THREADS");
    const int n = wanted ? std::atoi(wanted) : static_cast<int>(std::thread::hardware_concurrency());
    return std::clamp(n, 1, kMaxWorkers);
}

ThreadPool& pool() {
    // It is never destroyed: a stream's thread may still use it while the process ends.
    static ThreadPool* const threads = new ThreadPool(static_cast<size_t>(n_workers() - 1));
    return *threads;
}

}  // namespace

int n_workers() {
    static const int n = choose_n_workers();
    return n;
}

void run_items(int64_t n, const std::function<void(int64_t, int)>& item) {
    std::atomic<int64_t> next{0};
    const auto work = [&](int thread) {
        for (int64_t i = next++; i < n; i = next++) item(i, thread);
    };
    std::vector<std::future<void>> others;
    const int n_threads = static_cast<int>(std::min<int64_t>(n, n_workers()));
    for (int thread = 1; thread < n_threads; ++thread) others.push_back(pool().enqueue(work, thread));
    work(0);
    for (std::future<void>& other : others) other.get();
}

}  // namespace tq::mlx_plugin
