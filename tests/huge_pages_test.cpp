// Large caches ask the system for huge pages. Whether it has any is its own business.
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "turboquant/cache/kv_cache.h"
#include "turboquant/cpu/engine.h"

namespace tq {
namespace {

// The system's flags of the mapping that an address lies in, "" if it tells none. "hg" is what was asked for.
std::string mapping_flags(const void* address) {
    const auto wanted = reinterpret_cast<uintptr_t>(address);
    std::ifstream mappings("/proc/self/smaps");
    bool here = false;
    for (std::string line; std::getline(mappings, line);) {
        uintptr_t begin = 0, end = 0;
        char dash = 0;
        if (std::istringstream range(line); range >> std::hex >> begin >> dash >> end && dash == '-') {
            here = begin <= wanted && wanted < end;
        } else if (here && line.starts_with("VmFlags:")) {
            return line;
        }
    }
    return "";
}

TEST(HugePages, AreAskedForByLargeCaches) {
    if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) GTEST_SKIP() << "this system has no huge pages";
    KvCacheParams params;
    params.head_dim_k = params.head_dim_v = 128;
    params.n_head_kv = 8;
    params.n_cells = 32768;
    const auto cache = KvCache::create(params, cpu_engine(Isa::kScalar));
    ASSERT_TRUE(cache.ok());
    const PackedTensor keys = cache.value().keys();
    const size_t bytes = static_cast<size_t>(keys.n_records) * keys.codec->format().block_bytes();
    ASSERT_GT(bytes, size_t{8} << 20);
    EXPECT_NE(mapping_flags(keys.records + bytes / 2).find(" hg"), std::string::npos);
}

}  // namespace
}  // namespace tq
