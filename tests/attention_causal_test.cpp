// The causal flag and the window say what a mask would say, in the same bits, and without touching what no token sees.
#include <gtest/gtest.h>

#include "tests/support/attention_variants.h"

namespace tq::test {
namespace {

bool seen(const AttentionCase& c, int64_t window, int64_t token, int64_t cell) {
    const int64_t own = c.n_kv - c.n_tokens + token;
    return cell <= own && (window == 0 || cell > own - window);
}

class AttentionCausal : public testing::TestWithParam<AttentionCase> {
  protected:
    const AttentionCase case_ = GetParam();
    const AttentionProblem problem_{case_};

    // The case's mask, if any, and in it what the window hides.
    std::vector<uint16_t> mask_of(int64_t window) const {
        std::vector<uint16_t> mask(case_.n_stream * case_.n_tokens * problem_.mask_token(), AttentionProblem::kMasked);
        for (int64_t stream = 0; stream < case_.n_stream; ++stream)
            for (int64_t token = 0; token < case_.n_tokens; ++token)
                for (int64_t cell = 0; cell < case_.n_kv; ++cell) {
                    if (!seen(case_, window, token, cell)) continue;
                    mask[(stream * case_.n_tokens + token) * problem_.mask_token() + cell] =
                        problem_.mask_at(stream, token, cell);
                }
        return mask;
    }
    std::vector<int64_t> windows() const { return {0, 1, 3, 64, 100, case_.n_kv / 2 + 1, case_.n_kv + 7, INT64_MAX}; }
};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionCausal, testing::ValuesIn(some_attention_cases()));

TEST_P(AttentionCausal, IsTheMaskThatSaysTheSame) {
    for (int64_t window : windows()) {
        const std::vector<uint16_t> mask = mask_of(window);
        LseRows expected_lse(case_);
        const std::vector<float> expected = problem_.run_changed([&](AttentionShape&, AttentionInputs& in) {
            in.mask = mask.data();
            expected_lse.ask(in);
        });
        const auto has = [&](int64_t, int64_t block) {
            return seen(case_, window, 0, (block + 1) * kBlockCells - 1) ||
                   seen(case_, window, case_.n_tokens - 1, block * kBlockCells) ||
                   (block * kBlockCells < case_.n_kv &&
                    (window == 0 || (block + 1) * kBlockCells > case_.n_kv - case_.n_tokens + 1 - window));
        };
        const TableOfSome k(problem_.keys().tensor(), case_.first_stream, case_.n_stream, has),
            v(problem_.values().tensor(), case_.first_stream, case_.n_stream, has);
        for (int n_threads : kThreadNumbers) {
            LseRows lse(case_);
            const auto out = problem_.run(available_isas().back(), n_threads, AttentionProblem::run_in_order,
                                          [&](AttentionShape& s, AttentionInputs& in) {
                                              s.causal = true;
                                              s.window = window;
                                              in.k.block_table = k.data();
                                              in.v.block_table = v.data();
                                              lse.ask(in);
                                          });
            EXPECT_TRUE(same_bits(out, expected)) << "window " << window << ", " << n_threads << " threads";
            EXPECT_TRUE(same_bits(lse.values, expected_lse.values)) << "window " << window;
        }
    }
}

TEST_P(AttentionCausal, AllIsasGiveTheSameBits) {
    const auto windowed = [](AttentionShape& s, AttentionInputs&) { s.causal = true, s.window = 70; };
    const auto run = [&](Isa isa) { return problem_.run(isa, 1, AttentionProblem::run_in_order, windowed); };
    const std::vector<float> expected = run(Isa::kScalar);
    for (Isa isa : available_isas()) EXPECT_TRUE(same_bits(run(isa), expected)) << isa_name(isa);
}

TEST_P(AttentionCausal, TheReferenceSaysTheSame) {
    const std::vector<uint16_t> mask = mask_of(50);
    std::vector<float> by_mask = problem_.empty_output(), by_window = by_mask;
    AttentionInputs in = problem_.inputs(problem_.keys().codec, problem_.values().codec, by_mask);
    in.mask = mask.data();
    attention_reference(problem_.shape(), in);
    AttentionShape s = problem_.shape();
    s.causal = true;
    s.window = 50;
    attention_reference(s, problem_.inputs(problem_.keys().codec, problem_.values().codec, by_window));
    EXPECT_TRUE(same_bits(by_window, by_mask));
}

// A million cells of which a window of 100 has records: it is what it is at the end of few.
TEST(AttentionWindow, CostsAndTouchesWhatItShows) {
    constexpr int64_t kMany = int64_t{1} << 20, kFew = 1024, kBlocks = kMany / kBlockCells;
    for (Codes keys : {Codes(4), centered(4)}) {
        const AttentionProblem problem({64, 64, 4, 2, 3, kFew, keys, 4});
        const auto windowed = [](AttentionShape& s, AttentionInputs&) { s.causal = true, s.window = 100; };
        const std::vector<float> expected = problem.run_changed(windowed);
        std::vector<int32_t> table(kBlocks, TableOfSome::kNowhere);
        for (int64_t i = 1; i <= 2; ++i) table[kBlocks - i] = static_cast<int32_t>(kFew / kBlockCells - i);
        for (int n_threads : kThreadNumbers) {
            const auto out = problem.run(available_isas().back(), n_threads, AttentionProblem::run_in_order,
                                         [&](AttentionShape& s, AttentionInputs& in) {
                                             windowed(s, in);
                                             s.n_kv = in.k.n_cells = in.v.n_cells = kMany;
                                             in.k.block_table = in.v.block_table = table.data();
                                         });
            EXPECT_TRUE(same_bits(out, expected)) << keys << ", " << n_threads << " threads";
        }
    }
}

TEST(AttentionWindow, NeedsCausality) {
    const AttentionProblem problem({64, 64, 1, 1, 1, 100});
    const auto refused = [&](bool causal, int64_t window, const std::string& reason) {
        AttentionShape s = problem.shape();
        s.causal = causal;
        s.window = window;
        const auto plan =
            AttentionPlan::create(s, problem.keys().codec, problem.values().codec, cpu_engine(Isa::kScalar));
        EXPECT_EQ(plan.status().error(), Error::kInvalidArgument);
        EXPECT_NE(plan.status().message().find(reason), std::string::npos) << plan.status().message();
    };
    refused(false, 5, "window is 5; without causal");
    refused(true, -1, "window is -1; allowed");
}

}  // namespace
}  // namespace tq::test
