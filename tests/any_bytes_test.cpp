// Whatever bytes a cache holds, attention reads no memory but its own, says the same on every ISA, and nothing but
// numbers.
#include <gtest/gtest.h>

#include "tests/support/attention_problem.h"

namespace tq::test {
namespace {

class AnyBytes : public testing::TestWithParam<std::tuple<Codes, Codes>> {};
INSTANTIATE_TEST_SUITE_P(Codings, AnyBytes,
                         testing::Combine(testing::Values(Codes(2), Codes(5), Codes(8), centered(3), centered(8),
                                                          centered(trellis(4)), trellis(5)),
                                          testing::Values(Codes(3), Codes(6), Codes(8), trellis(4))));

TEST_P(AnyBytes, AreAttendedTo) {
    const auto [keys, values] = GetParam();
    for (uint64_t seed = 1; seed <= 3; ++seed) {
        AttentionProblem problem({80, 48, 2, 3, 2, 130, keys, values, Mask::kCausal}, seed);
        problem.fill_with_any_bytes();
        const std::vector<float> out = problem.run();
        for (float x : out) ASSERT_TRUE(std::isfinite(x));
        for (Isa isa : available_isas()) EXPECT_TRUE(same_bits(problem.run(isa), out)) << isa_name(isa);
    }
}

}  // namespace
}  // namespace tq::test
