// Stands in for base/machine.cpp in the tests of avxvnni: the machine has that ISA and no other where it has AVX-512
// VNNI. The kernels that these tests link are those of kernels_avxvnni.cpp in the EVEX encoding (tests/CMakeLists.txt).
#include <gtest/gtest.h>

#include "turboquant/base/machine.h"

namespace tq {

bool machine_has(Isa isa) {
    const bool runs_evex = __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    return isa == Isa::kScalar || (isa == Isa::kAvxVnni && runs_evex);
}

namespace test {
namespace {

TEST(AvxVnni, IsWhatTheseTestsRun) {
    if (!machine_has(Isa::kAvxVnni)) GTEST_SKIP() << "no AVX-512 VNNI here: these tests ran scalar kernels only";
    EXPECT_EQ(available_isas().back(), Isa::kAvxVnni);
}

}  // namespace
}  // namespace test
}  // namespace tq
