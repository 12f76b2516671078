#include "turboquant/base/huge_pages.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>

namespace tq {

void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#ifdef __linux__
    constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t first = (address + kHugePage - 1) / kHugePage * kHugePage;
    const uintptr_t last = (address + bytes) / kHugePage * kHugePage;
    // It fails where the kernel was built without them, which is no fault.
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace tq
