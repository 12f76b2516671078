// Attention by the shaders, lane by lane, has the bits of the CPU's kernels.
#include <gtest/gtest.h>

#include "attention_shapes.h"
#include "metal_attention.h"

TQ_METAL_LIBRARY(metal_shaders);

namespace tq::test {
namespace {

class MetalAttentionBits : public testing::TestWithParam<AttentionCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, MetalAttentionBits, testing::ValuesIn(metal_attention_cases()));

TEST_P(MetalAttentionBits, AreThoseOfTheCpu) {
    const AttentionProblem problem(GetParam());
    const std::vector<float> expected = problem.run(Isa::kScalar), out = run_on_metal(msl_library_metal_shaders, problem);
    ASSERT_EQ(out.size(), expected.size());
    size_t different = 0, first = 0;
    for (size_t i = 0; i < out.size(); ++i) {
        if (std::bit_cast<uint32_t>(out[i]) == std::bit_cast<uint32_t>(expected[i])) continue;
        if (different++ == 0) first = i;
    }
    EXPECT_EQ(different, 0u) << "of " << out.size() << ", first at " << first << ": " << out[first] << " instead of "
                             << expected[first];
}

}  // namespace
}  // namespace tq::test
