// Streams of different lengths in one plan: each is what it is in a plan of its own, and what it lacks is not read.
#include <gtest/gtest.h>

#include "tests/support/attention_variants.h"

namespace tq::test {
namespace {

constexpr int64_t kStreams = 4;

AttentionCase with_streams(AttentionCase c) {
    c.n_stream = kStreams;
    return c;
}

class AttentionRagged : public testing::TestWithParam<AttentionCase> {
  protected:
    AttentionCase case_ = with_streams(GetParam());
    AttentionProblem problem_{case_};
    std::vector<int64_t> n_kv_{case_.n_kv, (case_.n_kv + 1) / 2, 0, case_.n_kv - case_.n_kv / 3};
    std::vector<int64_t> n_tokens_{(case_.n_tokens + 1) / 2, case_.n_tokens, case_.n_tokens, case_.n_tokens - 1};

    std::vector<float> ragged(int n_threads, LseRows& lse, bool causal) {
        const auto has = [&](int64_t stream, int64_t block) { return block * kBlockCells < n_kv_[stream]; };
        const TableOfSome k(problem_.keys().tensor(), case_.first_stream, kStreams, has),
            v(problem_.values().tensor(), case_.first_stream, kStreams, has);
        return problem_.run(available_isas().back(), n_threads, AttentionProblem::run_in_order,
                            [&](AttentionShape& s, AttentionInputs& in) {
                                in.n_kv_of_stream = n_kv_.data();
                                in.n_tokens_of_stream = n_tokens_.data();
                                in.k.block_table = k.data();
                                in.v.block_table = v.data();
                                s.causal = causal;
                                lse.ask(in);
                            });
    }
    std::vector<float> alone(int64_t stream, LseRows& lse, bool causal) {
        return problem_.run_changed([&](AttentionShape& s, AttentionInputs& in) {
            lse.ask(in);
            take_stream(s, in, stream, n_kv_[stream], n_tokens_[stream]);
            s.causal = causal;
        });
    }
};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionRagged, testing::ValuesIn(some_attention_cases()));

TEST_P(AttentionRagged, EachStreamIsWhatItIsAlone) {
    for (bool causal : {false, true})
        for (int n_threads : kThreadNumbers) {
            LseRows lse(case_), lse_alone(case_);
            const std::vector<float> out = ragged(n_threads, lse, causal);
            for (int64_t stream = 0; stream < kStreams; ++stream) {
                const bool empty = n_kv_[stream] == 0 || n_tokens_[stream] == 0;
                const std::vector<float> expected = empty ? out : alone(stream, lse_alone, causal);
                for (int64_t token = 0; token < n_tokens_[stream]; ++token)
                    for (int head = 0; head < case_.n_head(); ++head) {
                        const auto row = problem_.row(out, stream, token, head);
                        EXPECT_TRUE(same_row(row, problem_.row(expected, stream, token, head)))
                            << n_threads << " threads: " << stream << " " << token << " " << head;
                        if (empty) continue;
                        EXPECT_EQ(lse.at(stream, token, head), lse_alone.at(stream, token, head));
                    }
            }
        }
}

TEST_P(AttentionRagged, RowsOfNoCellsAreZeroAndRowsOfNoTokenAreLeftAlone) {
    // What is behind the last token must not be read either.
    for (int64_t stream = 0; stream < kStreams; ++stream)
        for (int64_t token = n_tokens_[stream]; token < case_.n_tokens; ++token)
            for (float& x : problem_.query(stream, token, 0)) x = std::numeric_limits<float>::quiet_NaN();
    for (int n_threads : kThreadNumbers) {
        LseRows lse(case_);
        const std::vector<float> out = ragged(n_threads, lse, false);
        problem_.for_rows(out, [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
            const bool there = token < n_tokens_[stream];
            if (there && n_kv_[stream] > 0) return;
            for (float x : row) EXPECT_EQ(x, there ? 0.0f : AttentionProblem::kUntouched);
            const float sums = case_.sinks ? problem_.sinks[head] : -std::numeric_limits<float>::infinity();
            if (there)
                EXPECT_FLOAT_EQ(lse.at(stream, token, head), sums);
            else
                EXPECT_EQ(lse.at(stream, token, head), LseRows::kUntouched);
        });
    }
}

TEST_P(AttentionRagged, TheReferenceSaysTheSame) {
    const AccuracyBound bound(problem_);
    LseRows lse(case_);
    const std::vector<float> out = ragged(1, lse, true);
    std::vector<float> reference = problem_.empty_output();
    AttentionInputs in = problem_.inputs(problem_.keys().codec, problem_.values().codec, reference);
    AttentionShape s = problem_.shape();
    s.causal = true;
    in.n_kv_of_stream = n_kv_.data();
    in.n_tokens_of_stream = n_tokens_.data();
    attention_reference(s, in);
    problem_.for_rows(out, [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
        const auto expected = problem_.row(reference, stream, token, head);
        if (token >= n_tokens_[stream])
            EXPECT_TRUE(same_row(row, expected));
        else
            EXPECT_LE(bound.error(row, expected, head), 0.25 * bound.allowed(stream, token, head));
    });
}

TEST(AttentionRaggedBind, LengthsThatDoNotFitAreRefused) {
    AttentionProblem problem({64, 64, 2, 1, 3, 200, 4, 4, Mask::kNone, 2});
    std::vector<float> out = problem.empty_output();
    const AttentionPlan plan =
        AttentionPlan::create(problem.shape(), problem.keys().codec, problem.values().codec, cpu_engine(Isa::kScalar))
            .value();
    const auto bind = [&](std::vector<int64_t> n_kv, std::vector<int64_t> n_tokens, const int32_t* table = nullptr) {
        AttentionInputs in = problem.inputs(problem.keys().codec, problem.values().codec, out);
        in.n_kv_of_stream = n_kv.data();
        in.n_tokens_of_stream = n_tokens.data();
        in.k.block_table = table;
        return plan.bind(in);
    };
    const auto refused = [](const Status& status, const std::string& reason) {
        EXPECT_EQ(status.error(), Error::kInvalidArgument);
        EXPECT_NE(status.message().find(reason), std::string::npos) << status.message();
    };
    EXPECT_TRUE(bind({0, 200}, {3, 0}).ok());
    refused(bind({0, 201}, {3, 0}), "n_kv of stream 1 is 201; allowed: 0 to 200");
    refused(bind({-1, 200}, {3, 0}), "n_kv of stream 0 is -1");
    refused(bind({0, 200}, {4, 0}), "n_tokens of stream 0 is 4; allowed: 0 to 3");
    refused(bind({0, 200}, {3, -2}), "n_tokens of stream 1 is -2");

    TableOfSome table(problem.keys().tensor(), 0, 2, [](int64_t stream, int64_t block) { return stream + block < 2; });
    EXPECT_TRUE(bind({128, 64}, {3, 3}, table.data()).ok());
    refused(bind({129, 64}, {3, 3}, table.data()), "block 2 of stream 0");
    refused(bind({128, 65}, {3, 3}, table.data()), "block 1 of stream 1");
    EXPECT_TRUE(bind({128, 200}, {3, 0}, table.data()).ok()) << "without tokens nothing is read";
}

}  // namespace
}  // namespace tq::test
