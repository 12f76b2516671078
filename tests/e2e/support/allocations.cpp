#include "allocations.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <execinfo.h>
#include <link.h>
#include <malloc.h>

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): glibc's own, behind those at the end
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

namespace tq::e2e {
namespace {

// Says where a library lies in memory. (Nothing here may allocate.)
struct Range {
    std::string_view name;
    uintptr_t begin = UINTPTR_MAX, end = 0;
    bool has(const void* p) const {
        return reinterpret_cast<uintptr_t>(p) >= begin && reinterpret_cast<uintptr_t>(p) < end;
    }
};

Range g_plugin{"libggml-turboquant"}, g_cpu{"libggml-cpu"}, g_cxx{"libstdc++"};

std::atomic<bool> g_counting{false}, g_keeping{false};
std::atomic<int64_t> g_count{0}, g_news{0}, g_fail_at{0};
constexpr size_t kLarge = 16384;
constexpr unsigned char kFiller = 0xdb;
std::array<std::atomic<unsigned char*>, 8192> g_freed{};
std::atomic<size_t> g_n_freed{0};
thread_local bool t_inside = false;  // backtrace() may allocate

int measure(dl_phdr_info* info, size_t, void*) {
    for (Range* range : {&g_plugin, &g_cpu, &g_cxx}) {
        if (std::string_view(info->dlpi_name).find(range->name) == std::string_view::npos) continue;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
            const ElfW(Phdr)& segment = info->dlpi_phdr[i];
            if (segment.p_type != PT_LOAD) continue;
            const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
            range->begin = std::min(range->begin, begin);
            range->end = std::max(range->end, begin + segment.p_memsz);
        }
    }
    return 0;
}

struct Caller {
    bool plugin = false;
    bool operator_new = false;
};

Caller caller() {
    std::array<void*, 64> frames;
    Caller result;
    const int n = backtrace(frames.data(), static_cast<int>(frames.size()));
    for (int i = 0; i < n; ++i) {
        if (g_cpu.has(frames[i])) break;
        result.operator_new |= g_cxx.has(frames[i]);
        if (g_plugin.has(frames[i])) {
            result.plugin = true;
            break;
        }
    }
    return result;
}

// False: this allocation is to fail.
bool note_allocation() {
    if (!g_counting || t_inside) return true;
    t_inside = true;
    const Caller who = caller();
    t_inside = false;
    if (!who.plugin) return true;
    ++g_count;
    if (!who.operator_new || ++g_news != g_fail_at) return true;
    errno = ENOMEM;
    return false;
}

// The last large block that was freed, if it has about this size; it is not a freed one any more.
void* take_freed(size_t bytes) {
    for (size_t i = g_n_freed; i-- > 0;) {
        void* block = g_freed[i];
        const size_t usable = block ? malloc_usable_size(block) : 0;
        if (usable < kLarge) continue;
        if (usable < bytes || usable > bytes + bytes / 8) return nullptr;
        g_freed[i] = nullptr;
        return block;
    }
    return nullptr;
}

void* aligned(size_t alignment, size_t bytes) {
    if (!note_allocation()) return nullptr;
    void* block = g_keeping && bytes >= kLarge ? take_freed(bytes) : nullptr;
    return block ? block : __libc_memalign(alignment, bytes);
}

void release(void* block) {
    if (!g_keeping || !block) return __libc_free(block);
    std::memset(block, kFiller, malloc_usable_size(block));
    const size_t i = g_n_freed++;
    if (i >= g_freed.size()) std::abort();
    g_freed[i] = static_cast<unsigned char*>(block);
}

}  // namespace

PluginAllocations::PluginAllocations(int64_t fail_at) {
    dl_iterate_phdr(measure, nullptr);
    void* frame;
    backtrace(&frame, 1);  // loads the unwinder
    g_count = 0;
    g_news = 0;
    g_fail_at = fail_at;
    g_counting = true;
}

PluginAllocations::~PluginAllocations() {
    g_counting = false;
}

int64_t PluginAllocations::count() const {
    return g_count;
}

FreedMemory::FreedMemory() {
    g_n_freed = 0;
    g_keeping = true;
}

FreedMemory::~FreedMemory() {
    g_keeping = false;
}

bool FreedMemory::untouched() const {
    for (size_t i = 0; i < g_n_freed; ++i) {
        const unsigned char* block = g_freed[i];
        if (block &&
            !std::all_of(block, block + malloc_usable_size(g_freed[i]), [](unsigned char c) { return c == kFiller; })) {
            return false;
        }
    }
    return true;
}

}  // namespace tq::e2e

// The program's own take precedence over the C library's in every library that it loads.
extern "C" {
void* malloc(size_t bytes) {
    return tq::e2e::note_allocation() ? __libc_malloc(bytes) : nullptr;
}
void* calloc(size_t n, size_t bytes) {
    return tq::e2e::note_allocation() ? __libc_calloc(n, bytes) : nullptr;
}
void* realloc(void* p, size_t bytes) {
    return tq::e2e::note_allocation() ? __libc_realloc(p, bytes) : nullptr;
}
void* memalign(size_t alignment, size_t bytes) {
    return tq::e2e::aligned(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) {
    return tq::e2e::aligned(alignment, bytes);
}
int posix_memalign(void** p, size_t alignment, size_t bytes) {
    *p = tq::e2e::aligned(alignment, bytes);
    return *p ? 0 : ENOMEM;
}
void free(void* p) {
    tq::e2e::release(p);
}
}
