// The log-sum-exp that a row's softmax divided by, and what it is for: attention over parts of a cache merges to that
// over the whole.
#include <gtest/gtest.h>

#include "tests/support/attention_variants.h"

namespace tq::test {
namespace {

struct States {
    std::vector<float> out;
    LseRows lse;
};

class AttentionLse : public testing::TestWithParam<AttentionCase> {
  protected:
    const AttentionCase case_ = GetParam();
    const AttentionProblem problem_{case_};

    static States fused(const AttentionProblem& problem, int n_threads, const AttentionProblem::Change& change = {}) {
        LseRows lse(problem.description());
        std::vector<float> out = problem.run(available_isas().back(), n_threads, AttentionProblem::run_in_order,
                                             [&](AttentionShape& s, AttentionInputs& in) {
                                                 lse.ask(in);
                                                 if (change) change(s, in);
                                             });
        return {std::move(out), std::move(lse)};
    }
    static States reference(const AttentionProblem& problem, const AttentionProblem::Change& change = {}) {
        States states{problem.empty_output(), LseRows(problem.description())};
        AttentionInputs in = problem.inputs(problem.keys().codec, problem.values().codec, states.out);
        AttentionShape s = problem.shape();
        states.lse.ask(in);
        if (change) change(s, in);
        attention_reference(s, in);
        return states;
    }
};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionLse, testing::ValuesIn(some_attention_cases()));

// plan.h: rounding of the query moves a logit by no more than kQueryError * Q; that of floats is added.
double allowed_lse_error(const AttentionProblem& problem, const AccuracyBound& bound, int64_t stream, int64_t token,
                         int head, double lse) {
    const double of_query =
        bound.allowed(stream, token, head) / problem.largest_value() - weight_error(problem.description().values.bits);
    return 0.5 * of_query + 2e-5 * (1 + std::abs(lse));
}

TEST_P(AttentionLse, IsTheReferences) {
    const States expected = reference(problem_), actual = fused(problem_, 1);
    EXPECT_TRUE(same_bits(actual.out, problem_.run())) << "asking for it changes the output";
    const AccuracyBound bound(problem_);
    problem_.for_rows(actual.out, [&](int64_t stream, int64_t token, int head, std::span<const float>) {
        const float a = actual.lse.at(stream, token, head), b = expected.lse.at(stream, token, head);
        if (std::isinf(b))
            EXPECT_EQ(a, b);
        else
            EXPECT_NEAR(a, b, allowed_lse_error(problem_, bound, stream, token, head, b));
        if (!problem_.fully_masked(stream, token)) return;
        const float of_nothing = case_.sinks ? problem_.sinks[head] : -std::numeric_limits<float>::infinity();
        EXPECT_FLOAT_EQ(a, of_nothing);
    });
}

TEST_P(AttentionLse, WritesOnlyItsRows) {
    LseRows lse = fused(problem_, 1).lse;
    int64_t untouched = std::count(lse.values.begin(), lse.values.end(), LseRows::kUntouched);
    EXPECT_EQ(untouched, std::ssize(lse.values) - case_.n_stream * case_.n_tokens * case_.n_head());
}

TEST_P(AttentionLse, ThreadsAndIsasGiveTheSameBits) {
    const LseRows expected = fused(problem_, 1).lse;
    EXPECT_TRUE(same_bits(fused(problem_, 8).lse.values, expected.values));
    for (Isa isa : available_isas()) {
        LseRows lse(case_);
        problem_.run(isa, 1, AttentionProblem::run_in_order,
                     [&](AttentionShape&, AttentionInputs& in) { lse.ask(in); });
        EXPECT_TRUE(same_bits(lse.values, expected.values)) << isa_name(isa);
    }
}

TEST_P(AttentionLse, IsNanWhereTheOutputIs) {
    AttentionProblem problem(case_);
    problem.query(0, 0, 0)[1] = std::numeric_limits<float>::quiet_NaN();
    const States states = fused(problem, 1);
    problem.for_rows(states.out, [&](int64_t stream, int64_t token, int head, std::span<const float>) {
        EXPECT_EQ(std::isnan(states.lse.at(stream, token, head)), stream == 0 && token == 0 && head == 0);
    });
}

// ---- merging

// out = (exp(a.lse) a.out + exp(b.lse) b.out) / (exp(a.lse) + exp(b.lse)), and the whole's lse.
void merge(const AttentionProblem& problem, const States& a, const States& b, States& whole) {
    problem.for_rows(a.out, [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
        const double la = a.lse.at(stream, token, head), lb = b.lse.at(stream, token, head), top = std::max(la, lb);
        const auto other = problem.row(b.out, stream, token, head),
                   target = problem.row(whole.out, stream, token, head);
        const double wa = std::isinf(top) ? 0 : std::exp(la - top), wb = std::isinf(top) ? 0 : std::exp(lb - top);
        for (size_t d = 0; d < row.size(); ++d) {
            const double x = wa + wb == 0 ? 0 : (wa * row[d] + wb * other[d]) / (wa + wb);
            const_cast<float&>(target[d]) = static_cast<float>(x);
        }
        float& lse = whole.lse.values[stream * whole.lse.stream + token * whole.lse.token + head * whole.lse.head];
        lse = static_cast<float>(std::isinf(top) ? top : top + std::log(wa + wb));
    });
}

// Cells [first, end) of a tensor in one of their own.
PackedRows part_of(const PackedRows& rows, Side side, Codes codes, int head_dim, int n_head, int64_t first, int64_t end,
                   const std::vector<float>& scales) {
    PackedRows part({side, codes, head_dim, n_head, end - first, rows.n_stream}, available_isas().back(), scales);
    for (int64_t stream = 0; stream < rows.n_stream; ++stream)
        for (int64_t cell = first; cell < end; ++cell)
            part.codec.copy(rows.blocks(stream), cell, part.blocks(stream), cell - first);
    return part;
}

// All cases but those with exact rows, which belong to a stream's cells, with centers, of which a copy is another
// approximation, and with scales, which the copies would have to share.
std::vector<AttentionCase> cases_to_merge(int64_t least_cells) {
    std::vector<AttentionCase> cases = attention_cases();
    std::erase_if(cases, [=](const AttentionCase& c) {
        return c.exact.any() || c.keys.centered || c.scaled || c.n_kv < least_cells;
    });
    return cases;
}

class AttentionMerging : public AttentionLse {
  protected:
    struct Halves {
        PackedRows k, v;
    };
    Halves upper(int64_t first) const {
        return {
            part_of(problem_.keys(), Side::kKey, case_.keys, case_.head_dim_k, case_.n_head_kv, first, case_.n_kv, {}),
            part_of(problem_.values(), Side::kValue, case_.values, case_.head_dim_v, case_.n_head_kv, first, case_.n_kv,
                    {})};
    }
    static void take_lower(AttentionShape& s, AttentionInputs&, int64_t n) { s.n_kv = n; }
    void take_upper(AttentionShape& s, AttentionInputs& in, const Halves& halves, int64_t first) const {
        const BlockCodec *k = in.k.codec, *v = in.v.codec;
        in.k = halves.k.tensor();
        in.v = halves.v.tensor();
        in.k.codec = k;
        in.v.codec = v;
        if (in.mask) in.mask += first;
        in.sinks = nullptr;  // they are in the lower part
        s.n_kv -= first;
    }
};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionMerging, testing::ValuesIn(cases_to_merge(2)));
class AttentionMergingChunks : public AttentionMerging {};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionMergingChunks, testing::ValuesIn(cases_to_merge(kChunkCells + 1)));

TEST_P(AttentionMerging, HalvesOfACacheMergeToTheWhole) {
    const States expected = reference(problem_);
    const AccuracyBound bound(problem_);
    const auto split_at = [&](int64_t first, auto state_of, auto check) {
        const Halves halves = upper(first);
        const States a = state_of([&](AttentionShape& s, AttentionInputs& in) { take_lower(s, in, first); });
        const States b = state_of([&](AttentionShape& s, AttentionInputs& in) { take_upper(s, in, halves, first); });
        States whole{problem_.empty_output(), LseRows(case_)};
        merge(problem_, a, b, whole);
        problem_.for_rows(whole.out, [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
            check(stream, token, head, row, whole.lse.at(stream, token, head));
        });
    };
    for (int64_t first : {int64_t{1}, case_.n_kv / 3 + 1, case_.n_kv - 1}) {
        split_at(
            first, [&](auto change) { return fused(problem_, 1, change); },
            [&](int64_t stream, int64_t token, int head, std::span<const float> row, float lse) {
                const auto exact = problem_.row(expected.out, stream, token, head);
                EXPECT_LE(bound.error(row, exact, head), 0.25 * bound.allowed(stream, token, head))
                    << first << ": " << stream << " " << token << " " << head;
                const float exact_lse = expected.lse.at(stream, token, head);
                if (std::isinf(exact_lse))
                    EXPECT_EQ(lse, exact_lse);
                else
                    EXPECT_NEAR(lse, exact_lse, allowed_lse_error(problem_, bound, stream, token, head, exact_lse));
            });
        split_at(
            first, [&](auto change) { return reference(problem_, change); },
            [&](int64_t stream, int64_t token, int head, std::span<const float> row, float) {
                const auto exact = problem_.row(expected.out, stream, token, head);
                EXPECT_LE(distance(row, exact), 1e-5 * norm(exact) + 1e-6);
            });
    }
}

// Between chunks the codes are met by the same integers either way, so that only float rounding is left.
TEST_P(AttentionMergingChunks, MergeToTheSameFloats) {
    const States expected = fused(problem_, 1);
    const Halves halves = upper(kChunkCells);
    const States a =
        fused(problem_, 1, [&](AttentionShape& s, AttentionInputs& in) { take_lower(s, in, kChunkCells); });
    const States b =
        fused(problem_, 8, [&](AttentionShape& s, AttentionInputs& in) { take_upper(s, in, halves, kChunkCells); });
    States whole{problem_.empty_output(), LseRows(case_)};
    merge(problem_, a, b, whole);
    problem_.for_rows(whole.out, [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
        const auto one = problem_.row(expected.out, stream, token, head);
        EXPECT_LE(distance(row, one), 2e-5 * (norm(one) + problem_.largest_value()));
    });
}

}  // namespace
}  // namespace tq::test
