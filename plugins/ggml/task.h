// Custom nodes: work of ours inside a graph that the CPU backend runs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace tq::plugin {

// A custom node's work.
class Task {
  public:
    virtual ~Task() = default;
    // Called by every thread of the CPU backend, with a barrier before and after.
    virtual void run(int thread, int n_threads) = 0;
};

// Deals items 0..count-1 in order, one at a time, to whichever thread is free: threads that lag and items that take
// long even out, and each thread still sees its items in ascending order.
class ItemDealer {
  public:
    // Not while a thread is in deal().
    void restart() { next_.store(0, std::memory_order_relaxed); }

    template <class Fn>
    void deal(int64_t count, Fn fn) {
        for (int64_t item = next(); item < count; item = next()) fn(item);
    }

  private:
    // What an item reads was written before the barrier, so that the counter need not order anything.
    int64_t next() { return next_.fetch_add(1, std::memory_order_relaxed); }

    std::atomic<int64_t> next_{0};
};

// Rows 0..count-1, each done by thread owner(row) % n_threads.
class RowsTask : public Task {
  public:
    using Owner = std::function<int64_t(int64_t)>;
    using Row = std::function<void(int64_t)>;
    RowsTask(int64_t count, Owner owner, Row row) : count_(count), owner_(std::move(owner)), row_(std::move(row)) {}

    void run(int thread, int n_threads) override {
        for (int64_t i = 0; i < count_; ++i) {
            if (owner_(i) % n_threads == thread) row_(i);
        }
    }

  private:
    int64_t count_;
    Owner owner_;
    Row row_;
};

// Tasks that do not depend on each other, in one node: one barrier for all of them.
class TaskGroup : public Task {
  public:
    void add(std::unique_ptr<Task> task) { tasks_.push_back(std::move(task)); }
    bool empty() const { return tasks_.empty(); }
    // Threads change places from task to task, so that uneven shares even out.
    void run(int thread, int n_threads) override {
        for (const std::unique_ptr<Task>& task : tasks_) {
            task->run(thread, n_threads);
            thread = (thread + 1) % n_threads;
        }
    }

  private:
    std::vector<std::unique_ptr<Task>> tasks_;
};

// 64-byte aligned scratch that the nodes of a graph share, one after another. It only grows.
class Arena {
  public:
    // Returns at least `bytes` bytes, at the address of the last call unless it had to grow.
    void* reserve(size_t bytes) {
        if (bytes > size_) {
            ++moves_;         // even if there is no memory: what was there is gone
            memory_.reset();  // first: both would not have to fit
            size_ = 0;
            memory_.reset(new (std::align_val_t{64}) std::byte[bytes]);
            size_ = bytes;
        }
        return memory_.get();
    }

    // Says how often it has moved; what was reserved before is gone.
    uint64_t moves() const { return moves_; }

  private:
    struct Deleter {
        void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
    };
    using Memory = std::unique_ptr<std::byte[], Deleter>;
    Memory memory_;
    size_t size_ = 0;
    uint64_t moves_ = 0;
};

}  // namespace tq::plugin
