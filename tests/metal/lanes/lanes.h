// A threadgroup's lanes as fibres of one thread: where they meet, and what they see of each other.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "memory.h"

namespace tq::lanes {

// Stacks of all lanes, kept from one threadgroup to the next.
class Stacks {
  public:
    static constexpr size_t kBytes = 128 << 10;
    Stacks();
    ~Stacks();
    Stacks(const Stacks&) = delete;
    Stacks& operator=(const Stacks&) = delete;
    uintptr_t begin(int lane) const { return begin_ + static_cast<uintptr_t>(lane) * kBytes; }
    bool has(uintptr_t address) const { return address - begin_ < kBytes * kMaxThreadsPerThreadgroup; }

  private:
    uintptr_t begin_;
};

struct Context {
    void* fibre = nullptr;
};

struct Lane {
    Context context;
    msl_sync waits = MSL_NO_SYNC;
    msl_place place{};
    unsigned memory = 0;  // that the barrier orders
    bool finished = false;
    bool stopped = false;  // by a bad access; others go on without it
    uint32_t inputs[MSL_INPUTS][3] = {};
    const void* arguments[kMslParameters] = {};
};

struct SimdGroup {
    int first = 0, count = 0;  // lanes of the threadgroup
    std::vector<int> order;    // in which they run
    uint16_t barriers[kOrderedSpaces] = {};
    int next = 0;  // in `order`, to run
    int turn = 0;  // which of the two slots is the next operation's: the other may still be read
    msl_exchange_slots slots[2];
};

struct ThreadgroupRun {
    const msl_kernel* kernel = nullptr;
    uint32_t number = 0;  // of the threadgroup
    Size3 position, size;
    bool check = true;
};

// Runs one threadgroup at a time.
class Threadgroup {
  public:
    static Threadgroup*& running();
    Threadgroup(Memory& memory, std::vector<Report>& reports, int max_reports, uint64_t seed);
    // prepare(lane, index) fills in inputs and arguments. False where lanes diverged: then the rest was not run.
    template <class Prepare>
    bool run(const ThreadgroupRun& what, Prepare prepare) {
        start(what);
        for (size_t i = 0; i < lanes_.size(); ++i) prepare(lanes_[i], static_cast<uint32_t>(i));
        return run_lanes();
    }
    void* threadgroup_memory(const char* name, const void* id, size_t bytes);

    // What a lane calls.
    msl_exchange_slots* exchange(const void* value, size_t bytes, const msl_place& place);
    void barrier(msl_sync scope, unsigned memory, const msl_place& place);
    void access(uintptr_t address, size_t size, Access access, const void* code);
    void undefined(const char* what, const char* file, uint32_t line, bool stops);
    int lane_in_simd_group() const { return current_ % kMslSimdWidth; }
    void lane_body();

  private:
    void start(const ThreadgroupRun& what);
    bool run_lanes();
    bool run_simd_group(SimdGroup& group);  // to the next threadgroup barrier or the end; false where its lanes diverge
    bool meet(const std::vector<int>& lanes, Fault* fault, std::string* text) const;
    void stop_lane();
    uintptr_t arena_begin() const;
    void suspend();  // the current lane; returns when it goes on
    void run_next(Context& from);
    void report(Fault fault, const std::string& text);
    std::string where(int lane) const;

    Memory& memory_;
    std::vector<Report>& reports_;
    int max_reports_;
    std::mt19937_64 random_;
    Stacks stacks_;
    std::vector<Lane> lanes_;
    std::vector<SimdGroup> groups_;
    uint16_t barriers_[kOrderedSpaces] = {};
    ThreadgroupRun what_;
    Context scheduler_;
    int current_ = 0;
    SimdGroup* current_group_ = nullptr;
    struct Variable {
        const void* id;
        void* address;
    };
    std::vector<Variable> variables_;
    std::vector<unsigned char> arena_;  // threadgroup memory
    std::shared_ptr<History> arena_history_;
    size_t arena_used_ = 0;
    bool refused_ = false;  // for want of it
};

}  // namespace tq::lanes
