// Threads that stay: starting one costs more than a small attention call, and must not be measured.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace tq::tool {

class ThreadTeam {
  public:
    explicit ThreadTeam(int n_threads);
    ~ThreadTeam();
    ThreadTeam(const ThreadTeam&) = delete;
    ThreadTeam& operator=(const ThreadTeam&) = delete;

    int size() const { return n_threads_; }

    // work(thread) on every thread, the caller being thread 0; returns when all are done.
    void run(const std::function<void(int)>& work);

    // Inside work: waits, spinning, until every thread is here.
    void barrier();

    // run() of work, where the clock starts once every thread is awake and stops when the last one is done. Seconds.
    double time(const std::function<void(int)>& work);

  private:
    void serve(int thread);

    int n_threads_;
    const std::function<void(int)>* work_ = nullptr;  // null: end
    alignas(64) std::atomic<uint32_t> job_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> passed_{0};
    std::vector<std::thread> threads_;
};

// Item numbers of a phase, handed to whichever thread is free. On a cache line of its own.
struct alignas(64) ItemCounter {
    std::atomic<int64_t> next{0};
};

}  // namespace tq::tool
