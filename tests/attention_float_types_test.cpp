// f16 and bf16 queries and outputs are those of f32, converted before and after.
#include <gtest/gtest.h>

#include "tests/support/attention_variants.h"
#include "turboquant/base/float_type.h"

namespace tq::test {
namespace {

constexpr FloatType kHalfTypes[] = {FloatType::kF16, FloatType::kBf16};

std::vector<uint16_t> narrowed(const std::vector<float>& values, FloatType type) {
    std::vector<uint16_t> halves(values.size());
    from_floats(values.data(), std::ssize(values), type, halves.data());
    return halves;
}
std::vector<float> widened(const std::vector<uint16_t>& halves, FloatType type) {
    std::vector<float> values(halves.size());
    to_floats(halves.data(), type, std::ssize(halves), values.data());
    return values;
}

// The same layout with elements of half the size.
void halve(size_t& a, size_t& b, size_t& c) {
    for (size_t* stride : {&a, &b, &c}) *stride /= 2;
}
void take_query(AttentionInputs& in, const std::vector<uint16_t>& q, FloatType type) {
    in.q = q.data();
    in.q_type = type;
    halve(in.q_token_stride, in.q_head_stride, in.q_stream_stride);
}
void give_output(AttentionInputs& in, std::vector<uint16_t>& out, FloatType type) {
    in.out = out.data();
    in.out_type = type;
    halve(in.out_head_stride, in.out_token_stride, in.out_stream_stride);
}

class AttentionFloatTypes : public testing::TestWithParam<AttentionCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionFloatTypes, testing::ValuesIn(some_attention_cases()));

TEST_P(AttentionFloatTypes, AreConvertedBeforeAndAfter) {
    for (FloatType type : kHalfTypes) {
        AttentionProblem problem(GetParam());
        const std::vector<uint16_t> q = narrowed(problem.q, type);
        problem.q = widened(q, type);
        const std::vector<float> expected = problem.run();
        const std::vector<uint16_t> expected_halves = narrowed(expected, type);
        for (int n_threads : kThreadNumbers) {
            std::vector<uint16_t> out = narrowed(problem.empty_output(), type);
            const auto from_half = problem.run(available_isas().back(), n_threads, AttentionProblem::run_in_order,
                                               [&](AttentionShape&, AttentionInputs& in) { take_query(in, q, type); });
            EXPECT_TRUE(same_bits(from_half, expected));
            problem.run(available_isas().back(), n_threads, AttentionProblem::run_in_order,
                        [&](AttentionShape&, AttentionInputs& in) {
                            take_query(in, q, type);
                            give_output(in, out, type);
                        });
            EXPECT_EQ(out, expected_halves);
        }
        std::vector<float> unused = problem.empty_output(), reference = problem.reference();
        std::vector<uint16_t> out = narrowed(unused, type);
        AttentionInputs in = problem.inputs(problem.keys().codec, problem.values().codec, unused);
        take_query(in, q, type);
        give_output(in, out, type);
        attention_reference(problem.shape(), in);
        EXPECT_EQ(out, narrowed(reference, type));
    }
}

TEST(AttentionFloatRows, NanStaysNan) {
    for (FloatType type : kHalfTypes) {
        AttentionProblem problem({64, 64, 1, 1, 2, 100});
        problem.query(0, 1, 0)[7] = std::numeric_limits<float>::quiet_NaN();
        const std::vector<uint16_t> q = narrowed(problem.q, type);
        std::vector<uint16_t> out = narrowed(problem.empty_output(), type);
        problem.run_changed([&](AttentionShape&, AttentionInputs& in) {
            take_query(in, q, type);
            give_output(in, out, type);
        });
        const std::vector<float> wide = widened(out, type);
        for (float x : problem.row(wide, 0, 0, 0)) EXPECT_FALSE(std::isnan(x));
        for (float x : problem.row(wide, 0, 1, 0)) EXPECT_TRUE(std::isnan(x));
    }
}

TEST(FloatTypes, RoundToNearestEven) {
    const std::vector<float> ties{1 + 0x1p-11f, 1 + 3 * 0x1p-11f, 1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 1e30f, -1e30f};
    EXPECT_EQ(widened(narrowed(ties, FloatType::kF16), FloatType::kF16),
              (std::vector<float>{1, 1 + 0x1p-9f, 1 + 0x1p-8f, 1 + 3 * 0x1p-8f, INFINITY, -INFINITY}));
    const std::vector<float> wide = widened(narrowed(ties, FloatType::kBf16), FloatType::kBf16);
    EXPECT_EQ(wide[2], 1.0f);
    EXPECT_EQ(wide[3], 1 + 0x1p-6f);
    EXPECT_TRUE(std::isfinite(wide[4]));
    EXPECT_EQ(bytes_of(FloatType::kF32), 4u);
    EXPECT_EQ(bytes_of(FloatType::kBf16), 2u);
}

}  // namespace
}  // namespace tq::test
