#include "bench/team.h"

#include <chrono>

namespace tq::tool {
namespace {

// Longer than any wait between phases on idle cores; on busy ones the core goes to whoever is being waited for.
constexpr int kSpinsBeforeYield = 20000;

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

ThreadTeam::ThreadTeam(int n_threads) : n_threads_(n_threads) {
    for (int thread = 1; thread < n_threads; ++thread) threads_.emplace_back([this, thread] { serve(thread); });
}

ThreadTeam::~ThreadTeam() {
    work_ = nullptr;
    job_.fetch_add(1, std::memory_order_release);
    job_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::serve(int thread) {
    for (uint32_t seen = 0;; ++seen) {
        job_.wait(seen, std::memory_order_acquire);
        if (!work_) return;
        (*work_)(thread);
        barrier();
    }
}

void ThreadTeam::run(const std::function<void(int)>& work) {
    work_ = &work;
    job_.fetch_add(1, std::memory_order_release);
    job_.notify_all();
    work(0);
    barrier();
}

void ThreadTeam::barrier() {
    if (n_threads_ == 1) return;
    const uint32_t passed = passed_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == n_threads_ - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        passed_.store(passed + 1, std::memory_order_release);
        return;
    }
    for (int spins = 0; passed_.load(std::memory_order_acquire) == passed; ++spins) {
        if (spins < kSpinsBeforeYield) {
            relax();
        } else {
            std::this_thread::yield();
        }
    }
}

double ThreadTeam::time(const std::function<void(int)>& work) {
    using Clock = std::chrono::steady_clock;
    Clock::time_point begin, end;
    run([&](int thread) {
        barrier();
        if (thread == 0) begin = Clock::now();
        work(thread);
        barrier();
        if (thread == 0) end = Clock::now();
    });
    return std::chrono::duration<double>(end - begin).count();
}

}  // namespace tq::tool
