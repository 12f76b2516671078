#include "bindings.h"

#include <algorithm>
#include <cstring>

#include <link.h>

namespace tq::lanes {
namespace {

uint8_t no_bytes_are_defined[16] = {};  // of a scalar

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

}  // namespace

Bindings::Bindings(const msl_library& library, const Launch& launch)
    : library_(library), launch_(launch), kernel_(find_kernel(library, launch.kernel)) {}

std::vector<Report> Bindings::fit() {
    if (kernel_ == nullptr) {
        refuse("there is no such kernel");
    } else {
        check_sizes();
        set_constants();
        check_memory();
    }
    return reports_;
}

void Bindings::refuse(const std::string& text) {
    reports_.push_back({Fault::kLaunch, launch_.kernel + ": " + text});
}

void Bindings::check_sizes() {
    const Size3& size = launch_.threadgroup;
    const uint64_t threads = uint64_t{size.x} * size.y * size.z;
    const uint64_t limit =
        kernel_->max_threads != 0 ? static_cast<uint64_t>(kernel_->max_threads) : kMaxThreadsPerThreadgroup;
    if (threads == 0 || threads > limit)
        refuse("a threadgroup of " + size_text(size) + " threads; 1 to " + std::to_string(limit) + " are allowed");
    if (uint64_t{launch_.grid.x} * launch_.grid.y * launch_.grid.z == 0)
        refuse("a grid of " + size_text(launch_.grid) + " threads");
}

void Bindings::set_constants() {
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
                refuse(std::string("function constant ") + constant.name + " has " + std::to_string(constant.bytes) +
                       " bytes, not " + std::to_string(given.bytes));
                continue;
            }
            std::memcpy(constant.value, given.value, given.bytes);
            *constant.defined = true;
        }
        if (!used) refuse("there is no function constant " + std::to_string(given.index));
    }
}

const Buffer* Bindings::buffer(int index) const {
    for (const Buffer& one : launch_.buffers)
        if (one.index == index) return &one;
    return nullptr;
}
const ThreadgroupMemory* Bindings::threadgroup_memory(int index) const {
    for (const ThreadgroupMemory& one : launch_.threadgroup_memory)
        if (one.index == index) return &one;
    return nullptr;
}

bool Bindings::has_slot(msl_slot_kind kind, int index) const {
    return std::any_of(kernel_->slots, kernel_->slots + kernel_->slot_count,
                       [&](const msl_slot& slot) { return slot.kind == kind && slot.index == index && wants(slot); });
}

void Bindings::check_memory() {
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

void Bindings::add_buffers(Memory& memory) const {
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
        memory.add(std::move(region));
    }
}

void Bindings::add_constants(Memory& memory) const {
    for (int i = 0; i < library_.constant_count; ++i) {
        const msl_constant& constant = library_.constants[i];
        Region value, defined;
        value.name = std::string("function constant ") + constant.name;
        value.begin = reinterpret_cast<uintptr_t>(constant.value);
        value.bytes = constant.bytes;
        if (!*constant.defined) value.defined = no_bytes_are_defined;
        defined.name = "whether there is a " + value.name;
        defined.begin = reinterpret_cast<uintptr_t>(constant.defined);
        defined.bytes = sizeof(bool);
        memory.add(std::move(value));
        memory.add(std::move(defined));
    }
}

void Bindings::add_regions(Memory& memory) const {
    add_buffers(memory);
    add_constants(memory);
    ConstantData data{reinterpret_cast<uintptr_t>(&library_), &memory};
    dl_iterate_phdr(add_constant_data, &data);
}

}  // namespace tq::lanes
