// The nodes' eval_gpu, executed: what it binds and dispatches on a Metal device runs on the CPU, lane by lane, with
// every load and store looked at, and gives the bits of eval_cpu.
#include <gtest/gtest.h>

#include "metal_graph.h"

namespace tq::test {
namespace {

class MetalNodes : public testing::TestWithParam<MetalCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, MetalNodes, testing::ValuesIn(metal_cases()));

void expect_same_bytes(const mx::array& a, const mx::array& b, size_t index) {
    ASSERT_EQ(a.shape(), b.shape());
    ASSERT_EQ(a.dtype(), b.dtype());
    const mx::array x = mx::contiguous(a), y = mx::contiguous(b);
    mx::eval(x, y);
    size_t different = 0;
    for (size_t i = 0; i < x.nbytes(); ++i) different += x.data<uint8_t>()[i] != y.data<uint8_t>()[i];
    EXPECT_EQ(different, 0u) << "bytes of " << x.nbytes() << " of array " << index << ", " << text_of(a.shape());
}

TEST_P(MetalNodes, GiveTheBitsOfTheCpu) {
    on_gpu = false;
    const MetalResult cpu = run_case(GetParam());
    on_gpu = true;
    const int dispatches = n_dispatches();
    const MetalResult gpu = run_case(GetParam());
    EXPECT_GE(n_dispatches() - dispatches, 2 + 2 + 3);  // append and decode of either side; prepare, attend, merge
    ASSERT_EQ(cpu.arrays.size(), gpu.arrays.size());
    for (size_t i = 0; i < cpu.arrays.size(); ++i) expect_same_bytes(cpu.arrays[i], gpu.arrays[i], i);
}

// What attention cannot do on a GPU is known before: the caller then decodes.
TEST(MetalNodesErrors, ReasonsAreKnownBefore) {
    const MetalProblem plain({"k4v4", 2, 64, 64, 1, {0}, {3}}), window({"fast", 2, 64, 64, 1, {0}, {3}}),
        sinks({"k4v4+sink4", 2, 64, 64, 1, {0}, {3}});
    on_gpu = true;
    EXPECT_EQ(unsupported_reason(*plain.codec, 4, true), "");
    EXPECT_EQ(unsupported_reason(*window.codec, 4, false), "");
    EXPECT_NE(unsupported_reason(*window.codec, 4, true), "");
    EXPECT_NE(unsupported_reason(*sinks.codec, 4, true), "");
    EXPECT_NE(unsupported_reason(*plain.codec, 5, false), "");
    on_gpu = false;
    EXPECT_EQ(unsupported_reason(*window.codec, 4, true), "");
}

}  // namespace
}  // namespace tq::test
