// Custom nodes: work of ours inside a graph that the CPU backend runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace tq::plugin {

// A custom node's work: called by every thread of the CPU backend, with a barrier before and after.
class Task {
public:
    virtual ~Task() = default;
    virtual void run(int thread, int n_threads) = 0;
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

// 64-byte aligned scratch that the nodes of a graph share, one after another. It only grows; what was handed out before
// it grew stays valid until release_retired().
class Arena {
public:
    void* reserve(size_t bytes) {
        if (bytes > size_) {
            if (memory_) retired_.push_back(std::move(memory_));
            memory_.reset(new (std::align_val_t{64}) std::byte[bytes]);
            size_ = bytes;
        }
        return memory_.get();
    }
    void release_retired() { retired_.clear(); }

private:
    struct Deleter {
        void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
    };
    using Memory = std::unique_ptr<std::byte[], Deleter>;
    Memory memory_;
    size_t size_ = 0;
    std::vector<Memory> retired_;
};

}  // namespace tq::plugin
