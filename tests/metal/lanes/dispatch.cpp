#include "dispatch.h"

#include <algorithm>
#include <numeric>
#include <random>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "bindings.h"
#include "lanes.h"

namespace tq::lanes {
namespace {

// Whether this thread, and the fibres that it makes, take denormal floats for zeros.
class Denormals {
  public:
    explicit Denormals(bool flush) {
#if defined(__x86_64__)
        before_ = _mm_getcsr();
        if (flush) _mm_setcsr(before_ | 0x8040u);
#else
        static_cast<void>(flush);
#endif
    }
    ~Denormals() {
#if defined(__x86_64__)
        _mm_setcsr(before_);
#endif
    }
    Denormals(const Denormals&) = delete;
    Denormals& operator=(const Denormals&) = delete;

  private:
    [[maybe_unused]] unsigned before_ = 0;
};

class Dispatch {
  public:
    Dispatch(const msl_library& library, const Launch& launch) : bindings_(library, launch), launch_(launch) {}

    std::vector<Report> run() {
        reports_ = bindings_.fit();
        if (reports_.empty()) {
            const Denormals denormals(launch_.flush_denormals);
            run_threadgroups();
        }
        return reports_;
    }

  private:
    void run_threadgroups() {
        bindings_.add_regions(memory_);
        const Size3 &grid = launch_.grid, &size = launch_.threadgroup;
        count_ = {(grid.x + size.x - 1) / size.x, (grid.y + size.y - 1) / size.y, (grid.z + size.z - 1) / size.z};
        std::vector<uint32_t> order(size_t{count_.x} * count_.y * count_.z);
        std::iota(order.begin(), order.end(), 0u);
        std::mt19937_64 random(launch_.seed);
        std::shuffle(order.begin(), order.end(), random);
        Threadgroup threadgroup(memory_, reports_, launch_.max_reports, random());
        for (const uint32_t number : order) {
            if (static_cast<int>(reports_.size()) >= launch_.max_reports || !run_threadgroup(threadgroup, number))
                break;
        }
    }

    bool run_threadgroup(Threadgroup& threadgroup, uint32_t number) {
        const Size3 &grid = launch_.grid, &size = launch_.threadgroup;
        ThreadgroupRun what;
        what.kernel = &bindings_.kernel();
        what.number = number;
        what.check = launch_.check;
        what.position = {number % count_.x, number / count_.x % count_.y, number / count_.x / count_.y};
        const Size3& at = what.position;
        // At the grid's edges threadgroups may be smaller.
        what.size = {std::min(size.x, grid.x - at.x * size.x), std::min(size.y, grid.y - at.y * size.y),
                     std::min(size.z, grid.z - at.z * size.z)};
        return threadgroup.run(what, [&](Lane& lane, uint32_t index) {
            set_inputs(lane, what, index);
            set_arguments(lane, threadgroup);
        });
    }

    void set_inputs(Lane& lane, const ThreadgroupRun& what, uint32_t index) const {
        const Size3 &at = what.position, &own = what.size, &size = launch_.threadgroup;
        const Size3 local = {index % own.x, index / own.x % own.y, index / own.x / own.y};
        const auto set = [&](msl_input input, const Size3& value) {
            lane.inputs[input][0] = value.x;
            lane.inputs[input][1] = value.y;
            lane.inputs[input][2] = value.z;
        };
        const auto set1 = [&](msl_input input, uint32_t value) { set(input, {value, 1, 1}); };
        set(MSL_THREAD_POSITION_IN_GRID, {at.x * size.x + local.x, at.y * size.y + local.y, at.z * size.z + local.z});
        set(MSL_THREAD_POSITION_IN_THREADGROUP, local);
        set(MSL_THREADGROUP_POSITION_IN_GRID, at);
        set(MSL_THREADS_PER_GRID, launch_.grid);
        set(MSL_THREADS_PER_THREADGROUP, own);
        set(MSL_DISPATCH_THREADS_PER_THREADGROUP, size);
        set(MSL_THREADGROUPS_PER_GRID, count_);
        set1(MSL_THREAD_INDEX_IN_THREADGROUP, index);
        set1(MSL_THREAD_INDEX_IN_SIMDGROUP, index % kMslSimdWidth);
        set1(MSL_SIMDGROUP_INDEX_IN_THREADGROUP, index / kMslSimdWidth);
        set1(MSL_THREADS_PER_SIMDGROUP, kMslSimdWidth);
        set1(MSL_THREAD_EXECUTION_WIDTH, kMslSimdWidth);
        set1(MSL_SIMDGROUPS_PER_THREADGROUP, (own.x * own.y * own.z + kMslSimdWidth - 1) / kMslSimdWidth);
    }

    void set_arguments(Lane& lane, Threadgroup& threadgroup) const {
        const msl_kernel& kernel = bindings_.kernel();
        for (int i = 0; i < kernel.slot_count; ++i) {
            const msl_slot& slot = kernel.slots[i];
            const void*& argument = lane.arguments[i];
            if (slot.kind == MSL_INPUT) {
                argument = lane.inputs[slot.index];
            } else if (!bindings_.wants(slot)) {
                argument = nullptr;
            } else if (slot.kind == MSL_BUFFER) {
                argument = bindings_.buffer(slot.index)->data;
            } else {
                argument =
                    threadgroup.threadgroup_memory(slot.name, &slot, bindings_.threadgroup_memory(slot.index)->bytes);
            }
        }
    }

    Bindings bindings_;
    const Launch& launch_;
    Memory memory_;
    Size3 count_;
    std::vector<Report> reports_;
};

}  // namespace

const char* name(Fault fault) {
    switch (fault) {
        case Fault::kLaunch:
            return "launch";
        case Fault::kOutOfBoundsRead:
            return "out-of-bounds read";
        case Fault::kOutOfBoundsWrite:
            return "out-of-bounds write";
        case Fault::kReadOnlyWrite:
            return "write to read-only memory";
        case Fault::kThreadgroupRace:
            return "race in threadgroup memory";
        case Fault::kDeviceRace:
            return "race in device memory";
        case Fault::kUninitializedRead:
            return "read of uninitialized memory";
        case Fault::kUndefinedBehavior:
            return "undefined behaviour";
        case Fault::kDivergentBarrier:
            return "divergent barrier";
        case Fault::kDivergentSimdOperation:
            return "divergent SIMD operation";
    }
    return "unknown";
}

std::vector<Report> run(const msl_library& library, const Launch& launch) {
    return Dispatch(library, launch).run();
}

}  // namespace tq::lanes
