// These tests check what a plan refuses to be made for, and what to run on.
#include <limits>

#include <gtest/gtest.h>

#include "tests/support/attention_problem.h"

namespace tq::test {
namespace {

void expect_refused(const Status& status, const std::string& reason) {
    ASSERT_FALSE(status.ok()) << reason;
    EXPECT_EQ(status.error(), Error::kInvalidArgument);
    EXPECT_NE(status.message().find(reason), std::string::npos) << status.message();
}

class AttentionBind : public testing::Test {
  protected:
    static constexpr AttentionCase kCase{64, 80, 3, 2, 2, 100, 4, 4, Mask::kCausal, 2};
    AttentionProblem problem_{kCase};
    std::vector<float> out_ = problem_.empty_output();

    Result<AttentionPlan> plan(const std::function<void(AttentionShape&)>& change = {}) const {
        AttentionShape s = problem_.shape();
        if (change) change(s);
        return AttentionPlan::create(s, problem_.keys().codec, problem_.values().codec, cpu_engine(Isa::kScalar));
    }
    AttentionInputs inputs() { return problem_.inputs(problem_.keys().codec, problem_.values().codec, out_); }
};

TEST_F(AttentionBind, MoreStreamsThanTheCacheHasAreRefused) {
    expect_refused(plan([](AttentionShape& s) { s.n_stream = 3; })->bind(inputs()), "n_stream 3");
    expect_refused(plan([](AttentionShape& s) { s.n_stream = std::numeric_limits<int64_t>::max(); }).status(),
                   "n_stream");
    expect_refused(plan([](AttentionShape& s) { s.n_kv = 100 + AttentionProblem::kPadding + 1; })->bind(inputs()),
                   "n_kv 357");
    const AttentionPlan of_two = plan().value(), of_one = plan([](AttentionShape&s) { s.n_stream = 1; }).value();
    AttentionInputs in = inputs();
    EXPECT_TRUE(of_two.bind(in).ok());
    in.k_first_stream = 1;
    EXPECT_TRUE(of_one.bind(in).ok());
    expect_refused(of_two.bind(in), "stream 1");
    in = inputs();
    for (int64_t stream : {int64_t{-1}, int64_t{2}, std::numeric_limits<int64_t>::max()}) {
        in.v_first_stream = stream;
        expect_refused(of_one.bind(in), "stream " + std::to_string(stream));
    }
}

// A plan for k4v4 given any other coding of the same width.
TEST_F(AttentionBind, OtherCodesThanPlannedAreRefused) {
    const AttentionPlan k4v4 = plan().value();
    for (Codes coding : {Codes(2), Codes(8), centered(4), trellis(4), centered(trellis(4))}) {
        const PackedRows keys({Side::kKey, coding, 64, 2, 400, 2});
        AttentionInputs in = inputs();
        in.k = keys.tensor();
        expect_refused(k4v4.bind(in), "key tensor");
    }
    for (Codes coding : {Codes(3), Codes(8), trellis(4)}) {
        const PackedRows values({Side::kValue, coding, 80, 2, 400, 2});
        AttentionInputs in = inputs();
        in.v = values.tensor();
        expect_refused(k4v4.bind(in), "value tensor");
    }
    const PackedRows other_heads({Side::kKey, 4, 32, 4, 400, 2}), shorter({Side::kKey, 4, 64, 2, 99, 2}),
        of_values({Side::kValue, 4, 64, 2, 400, 2});
    AttentionInputs in = inputs();
    in.k = other_heads.tensor();
    expect_refused(k4v4.bind(in), "heads of 32");
    in.k = shorter.tensor();
    expect_refused(k4v4.bind(in), "99 cells");
    in.k = of_values.tensor();
    expect_refused(k4v4.bind(in), "key tensor");
}

TEST_F(AttentionBind, NullIsRefused) {
    const AttentionPlan p = plan().value();
    const auto refused = [&](auto change, const char* reason) {
        AttentionInputs in = inputs();
        change(in);
        expect_refused(p.bind(in), reason);
    };
    refused([](AttentionInputs& in) { in.q = nullptr; }, "null");
    refused([](AttentionInputs& in) { in.out = nullptr; }, "null");
    refused([](AttentionInputs& in) { in.k.codec = nullptr; }, "key tensor is null");
    refused([](AttentionInputs& in) { in.v.records = nullptr; }, "value tensor is null");
}

TEST_F(AttentionBind, ExactRowsHaveToBeThoseThatWerePlanned) {
    AttentionCase exact = kCase;
    exact.exact = {4, 16, 0};
    const AttentionProblem other(exact);
    const AttentionInputs with = other.inputs(other.keys().codec, other.values().codec, out_), without = inputs();
    const auto plan_of = [&](int64_t n) { return plan([n](AttentionShape& s) { s.n_exact = n; }).value(); };
    EXPECT_TRUE(plan_of(20).bind(with).ok());
    expect_refused(plan_of(19).bind(with), "19");
    expect_refused(plan_of(0).bind(with), "n_exact is 0");
    expect_refused(plan_of(20).bind(without), "no exact rows");
    AttentionInputs half = with;
    half.exact_v = nullptr;
    expect_refused(plan_of(20).bind(half), "alone");
    expect_refused(plan([](AttentionShape& s) { s.n_exact = -1; }).status(), "n_exact");
}

TEST_F(AttentionBind, SizesThatOverflowAreRefused) {
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
    for (int64_t n_tokens : {kMost, kMost / 6, int64_t{1} << 40}) {
        expect_refused(plan([=](AttentionShape& s) { s.n_tokens = n_tokens; }).status(), "too large");
    }
    expect_refused(plan([](AttentionShape& s) { s.n_threads = std::numeric_limits<int>::max(); }).status(),
                   "too large");
    expect_refused(plan([](AttentionShape& s) { s.n_exact = kMost; }).status(), "too large");
    expect_refused(plan([](AttentionShape& s) { s.n_kv = kMost; }).status(), "n_kv");
    expect_refused(plan([](AttentionShape& s) { s.n_head = 2000000000, s.n_tokens = int64_t{1} << 33; }).status(),
                   "too large");
}

// The reference says NaN where the kernels do.
TEST_F(AttentionBind, TheReferenceDoesNotHideNan) {
    problem_.query(0, 1, 2)[3] = std::numeric_limits<float>::quiet_NaN();
    problem_.for_rows(problem_.reference(), [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
        for (float x : row) EXPECT_EQ(std::isnan(x), stream == 0 && token == 1 && head == 2);
    });
}

}  // namespace
}  // namespace tq::test
