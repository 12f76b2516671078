// What a launch gives to its kernel, and whether it fits.
#pragma once

#include <string>
#include <vector>

#include "memory.h"

namespace tq::lanes {

class Bindings {
  public:
    Bindings(const msl_library& library, const Launch& launch);

    // Sets the library's function constants. What does not fit is reported; then nothing else may be called.
    std::vector<Report> fit();

    const msl_kernel& kernel() const { return *kernel_; }
    bool wants(const msl_slot& slot) const { return slot.only_where == nullptr || *slot.only_where; }
    const Buffer* buffer(int index) const;
    const ThreadgroupMemory* threadgroup_memory(int index) const;

    // Everything but threadgroup memory that the kernel may touch.
    void add_regions(Memory& memory) const;

  private:
    void refuse(const std::string& text);
    void check_sizes();
    void set_constants();
    void check_memory();
    bool has_slot(msl_slot_kind kind, int index) const;
    void add_buffers(Memory& memory) const;
    void add_constants(Memory& memory) const;

    const msl_library& library_;
    const Launch& launch_;
    const msl_kernel* kernel_ = nullptr;
    std::vector<Report> reports_;
};

}  // namespace tq::lanes
