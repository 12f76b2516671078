#include "dispatch.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include <link.h>

#include "lanes.h"

namespace tq::lanes {
namespace {

std::string size_text(const Size3& size) {
    return std::to_string(size.x) + " x " + std::to_string(size.y) + " x " + std::to_string(size.z);
}

const msl_kernel* find_kernel(const msl_library& library, const std::string& name) {
    for (int i = 0; i < library.kernel_count; ++i)
        if (name == library.kernels[i]->name) return library.kernels[i];
    return nullptr;
}

// Where the library itself keeps constant tables: what is loaded read-only, or made so after loading.
struct ConstantData {
    uintptr_t library;
    Memory* memory;
};
int add_constant_data(dl_phdr_info* module, size_t, void* data) {
    const auto& wanted = *static_cast<ConstantData*>(data);
    const auto has = [&](const ElfW(Phdr) & segment) {
        return wanted.library - (module->dlpi_addr + segment.p_vaddr) < segment.p_memsz;
    };
    if (std::none_of(module->dlpi_phdr, module->dlpi_phdr + module->dlpi_phnum, has)) return 0;
    for (int i = 0; i < module->dlpi_phnum; ++i) {
        const ElfW(Phdr)& segment = module->dlpi_phdr[i];
        if (segment.p_type != PT_GNU_RELRO && (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0)) continue;
        Region region;
        region.name = "constant data";
        region.begin = module->dlpi_addr + segment.p_vaddr;
        region.bytes = segment.p_memsz;
        wanted.memory->add(std::move(region));
    }
    return 1;
}

class Dispatch {
  public:
    Dispatch(const msl_library& library, const Launch& launch) : library_(library), launch_(launch) {}

    std::vector<Report> run() {
        kernel_ = find_kernel(library_, launch_.kernel);
        if (kernel_ == nullptr) {
            refuse("there is no such kernel");
            return reports_;
        }
        check_sizes();
        set_constants();
        check_bindings();
        if (reports_.empty()) run_threadgroups();
        return reports_;
    }

  private:
    void refuse(const std::string& text) { reports_.push_back({Fault::kLaunch, launch_.kernel + ": " + text}); }

    void check_sizes() {
        const Size3& size = launch_.threadgroup;
        const uint64_t threads = uint64_t{size.x} * size.y * size.z;
        const uint64_t limit =
            kernel_->max_threads != 0 ? static_cast<uint64_t>(kernel_->max_threads) : kMaxThreadsPerThreadgroup;
        if (threads == 0 || threads > limit)
            refuse("a threadgroup of " + size_text(size) + " threads; 1 to " + std::to_string(limit) + " are allowed");
        if (uint64_t{launch_.grid.x} * launch_.grid.y * launch_.grid.z == 0)
            refuse("a grid of " + size_text(launch_.grid) + " threads");
    }

    void set_constants() {
        for (int i = 0; i < library_.constant_count; ++i) {
            *library_.constants[i].defined = false;
            std::memset(library_.constants[i].value, 0, library_.constants[i].bytes);
        }
        for (const FunctionConstant& given : launch_.constants) {
            bool used = false;
            for (int i = 0; i < library_.constant_count; ++i) {
                const msl_constant& constant = library_.constants[i];
                if (constant.index != given.index) continue;
                used = true;
                if (constant.bytes != given.bytes) {
                    refuse(std::string("function constant ") + constant.name + " has " +
                           std::to_string(constant.bytes) + " bytes, not " + std::to_string(given.bytes));
                    continue;
                }
                std::memcpy(constant.value, given.value, given.bytes);
                *constant.defined = true;
            }
            if (!used) refuse("there is no function constant " + std::to_string(given.index));
        }
    }

    const Buffer* buffer(int index) const {
        for (const Buffer& one : launch_.buffers)
            if (one.index == index) return &one;
        return nullptr;
    }
    const ThreadgroupMemory* threadgroup_memory(int index) const {
        for (const ThreadgroupMemory& one : launch_.threadgroup_memory)
            if (one.index == index) return &one;
        return nullptr;
    }
    bool wants(const msl_slot& slot) const { return slot.only_where == nullptr || *slot.only_where; }

    bool has_slot(msl_slot_kind kind, int index) const {
        return std::any_of(kernel_->slots, kernel_->slots + kernel_->slot_count, [&](const msl_slot& slot) {
            return slot.kind == kind && slot.index == index && wants(slot);
        });
    }

    void check_bindings() {
        for (int i = 0; i < kernel_->slot_count; ++i) {
            const msl_slot& slot = kernel_->slots[i];
            if (!wants(slot)) continue;
            if (slot.kind == MSL_BUFFER && buffer(slot.index) == nullptr)
                refuse(std::string("nothing is bound to ") + slot.name + ", buffer " + std::to_string(slot.index));
            if (slot.kind == MSL_THREADGROUP && threadgroup_memory(slot.index) == nullptr)
                refuse(std::string("no length was given for ") + slot.name + ", threadgroup memory " +
                       std::to_string(slot.index));
        }
        for (const Buffer& one : launch_.buffers) {
            if (!has_slot(MSL_BUFFER, one.index)) refuse("the kernel has no buffer " + std::to_string(one.index));
            if (buffer(one.index) != &one) refuse("buffer " + std::to_string(one.index) + " is bound twice");
        }
        size_t bytes = 0;
        for (const ThreadgroupMemory& one : launch_.threadgroup_memory) {
            const std::string which = "threadgroup memory " + std::to_string(one.index);
            if (!has_slot(MSL_THREADGROUP, one.index)) refuse("the kernel has no " + which);
            if (threadgroup_memory(one.index) != &one) refuse(which + " has two lengths");
            if (one.bytes % 16 != 0)
                refuse(which + " has " + std::to_string(one.bytes) + " bytes, not a multiple of 16 bytes");
            bytes += one.bytes;
        }
        if (bytes > kThreadgroupMemoryBytes)
            refuse(std::to_string(bytes) + " bytes of threadgroup memory; " + std::to_string(kThreadgroupMemoryBytes) +
                   " are allowed");
    }

    void add_regions() {
        for (int i = 0; i < kernel_->slot_count; ++i) {
            const msl_slot& slot = kernel_->slots[i];
            if (slot.kind != MSL_BUFFER || !wants(slot)) continue;
            const Buffer& bound = *buffer(slot.index);
            Region region;
            region.name = std::string(slot.name) + " (buffer " + std::to_string(slot.index) + ")";
            region.space = Space::kDevice;
            region.begin = reinterpret_cast<uintptr_t>(bound.data);
            region.bytes = bound.bytes;
            region.writable = bound.writable;
            region.defined = bound.defined;
            memory_.add(std::move(region));
        }
        for (int i = 0; i < library_.constant_count; ++i) {
            const msl_constant& constant = library_.constants[i];
            Region value, defined;
            value.name = std::string("function constant ") + constant.name;
            value.begin = reinterpret_cast<uintptr_t>(constant.value);
            value.bytes = constant.bytes;
            if (!*constant.defined) value.defined = undefined_;
            defined.name = "whether there is a " + value.name;
            defined.begin = reinterpret_cast<uintptr_t>(constant.defined);
            defined.bytes = sizeof(bool);
            memory_.add(std::move(value));
            memory_.add(std::move(defined));
        }
        ConstantData data{reinterpret_cast<uintptr_t>(&library_), &memory_};
        dl_iterate_phdr(add_constant_data, &data);
    }

    void run_threadgroups() {
        add_regions();
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
        what.kernel = kernel_;
        what.number = number;
        what.check = launch_.check;
        what.position = {number % count_.x, number / count_.x % count_.y, number / count_.x / count_.y};
        const Size3& at = what.position;
        // At the grid's edges threadgroups may be smaller.
        what.size = {std::min(size.x, grid.x - at.x * size.x), std::min(size.y, grid.y - at.y * size.y),
                     std::min(size.z, grid.z - at.z * size.z)};
        return threadgroup.run(what, [&](Lane& lane, uint32_t index) {
            const Size3& own = what.size;
            const Size3 local = {index % own.x, index / own.x % own.y, index / own.x / own.y};
            const auto set = [&](msl_input input, const Size3& value) {
                lane.inputs[input][0] = value.x;
                lane.inputs[input][1] = value.y;
                lane.inputs[input][2] = value.z;
            };
            const auto set1 = [&](msl_input input, uint32_t value) { set(input, {value, 1, 1}); };
            set(MSL_THREAD_POSITION_IN_GRID,
                {at.x * size.x + local.x, at.y * size.y + local.y, at.z * size.z + local.z});
            set(MSL_THREAD_POSITION_IN_THREADGROUP, local);
            set(MSL_THREADGROUP_POSITION_IN_GRID, at);
            set(MSL_THREADS_PER_GRID, grid);
            set(MSL_THREADS_PER_THREADGROUP, own);
            set(MSL_DISPATCH_THREADS_PER_THREADGROUP, size);
            set(MSL_THREADGROUPS_PER_GRID, count_);
            set1(MSL_THREAD_INDEX_IN_THREADGROUP, index);
            set1(MSL_THREAD_INDEX_IN_SIMDGROUP, index % kMslSimdWidth);
            set1(MSL_SIMDGROUP_INDEX_IN_THREADGROUP, index / kMslSimdWidth);
            set1(MSL_THREADS_PER_SIMDGROUP, kMslSimdWidth);
            set1(MSL_THREAD_EXECUTION_WIDTH, kMslSimdWidth);
            set1(MSL_SIMDGROUPS_PER_THREADGROUP, (own.x * own.y * own.z + kMslSimdWidth - 1) / kMslSimdWidth);
            for (int i = 0; i < kernel_->slot_count; ++i) {
                const msl_slot& slot = kernel_->slots[i];
                const void*& argument = lane.arguments[i];
                if (slot.kind == MSL_INPUT)
                    argument = lane.inputs[slot.index];
                else if (!wants(slot))
                    argument = nullptr;
                else if (slot.kind == MSL_BUFFER)
                    argument = buffer(slot.index)->data;
                else
                    argument = threadgroup.threadgroup_memory(slot.name, &slot, threadgroup_memory(slot.index)->bytes);
            }
        });
    }

    const msl_library& library_;
    const Launch& launch_;
    const msl_kernel* kernel_ = nullptr;
    Memory memory_;
    Size3 count_;
    uint8_t undefined_[16] = {};  // of a scalar
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
