// Fused attention against exact attention, and every invariance of its bits that plan.h promises.
#include <gtest/gtest.h>

#include "tests/support/attention_cases.h"
#include "tests/support/bytes.h"

namespace tq::test {
namespace {

// ---- running the items of a plan in other ways
// ------------------------------------------------------------------------

constexpr AttentionPhase kPhases[] = {AttentionPhase::kPrepare, AttentionPhase::kAttend, AttentionPhase::kMerge};

std::vector<int64_t> items_of(const AttentionPlan& plan, AttentionPhase phase) {
    std::vector<int64_t> items(plan.n_items(phase));
    std::iota(items.begin(), items.end(), int64_t{0});
    return items;
}

void run_reversed(const AttentionPlan& plan, const AttentionInputs& in, void* workspace) {
    for (AttentionPhase phase : kPhases) {
        for (int64_t item = plan.n_items(phase) - 1; item >= 0; --item) plan.run(phase, item, 0, in, workspace);
    }
}

void run_shuffled(const AttentionPlan& plan, const AttentionInputs& in, void* workspace) {
    Random random(11);
    const int n_threads = plan.geometry().shape.n_threads;
    for (AttentionPhase phase : kPhases) {
        std::vector<int64_t> items = items_of(plan, phase);
        shuffle(items, random);
        for (int64_t item : items) plan.run(phase, item, static_cast<int>(random.below(n_threads)), in, workspace);
    }
}

// Real threads, each taking every n-th item; joining them is the barrier between phases.
void run_on_threads(const AttentionPlan& plan, const AttentionInputs& in, void* workspace) {
    const int n_threads = plan.geometry().shape.n_threads;
    for (AttentionPhase phase : kPhases) {
        std::vector<std::thread> threads;
        for (int t = 0; t < n_threads; ++t) {
            threads.emplace_back([&, t] {
                for (int64_t item = t; item < plan.n_items(phase); item += n_threads)
                    plan.run(phase, item, t, in, workspace);
            });
        }
        for (std::thread& thread : threads) thread.join();
    }
}

class Attention : public testing::TestWithParam<AttentionCase> {
  protected:
    const AttentionProblem problem_{GetParam()};
    const std::vector<float> expected_ = problem_.run();
};
class AttentionWithMask : public Attention {};
class AttentionWithoutMask : public Attention {};
class AttentionOfManyRows : public Attention {};

template <class Predicate>
std::vector<AttentionCase> cases_where(Predicate predicate) {
    std::vector<AttentionCase> cases = attention_cases();
    std::erase_if(cases, [&](const AttentionCase& c) { return !predicate(c); });
    return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, Attention, testing::ValuesIn(attention_cases()));
INSTANTIATE_TEST_SUITE_P(Cases, AttentionWithMask,
                         testing::ValuesIn(cases_where([](const AttentionCase& c) { return c.mask != Mask::kNone; })));
INSTANTIATE_TEST_SUITE_P(Cases, AttentionWithoutMask,
                         testing::ValuesIn(cases_where([](const AttentionCase& c) { return c.mask == Mask::kNone; })));
INSTANTIATE_TEST_SUITE_P(Cases, AttentionOfManyRows, testing::ValuesIn(cases_where([](const AttentionCase& c) {
                             return c.n_tokens * c.n_head() * c.n_stream > 1;
                         })));

// ---- accuracy
// ---------------------------------------------------------------------------------------------------------

constexpr double kOrdinary = 0.25;  // share of the bound that ordinary rows need

TEST_P(Attention, IsWithinAQuarterOfTheStatedBound) {
    const std::vector<float> reference = problem_.reference();
    const AccuracyBound bound(problem_);
    problem_.for_rows(expected_, [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
        const double error = bound.error(row, problem_.row(reference, stream, token, head), head);
        EXPECT_LE(error, kOrdinary * bound.allowed(stream, token, head)) << stream << " " << token << " " << head;
    });
}

// The same shapes with every width of K and V, on one seed each.
TEST(AttentionAccuracy, HoldsForAllWidths) {
    for (int k = kMinBits; k <= kMaxBits; ++k)
        for (int v = kMinBits; v <= kMaxBits; ++v) {
            const AttentionProblem problem({96, 80, 2, 2, 2, 130, k, v, Mask::kCausal},
                                           static_cast<uint64_t>(10 * k + v));
            const std::vector<float> reference = problem.reference();
            const AccuracyBound bound(problem);
            problem.for_rows(problem.run(), [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
                const double error = bound.error(row, problem.row(reference, stream, token, head), head);
                EXPECT_LE(error, kOrdinary * bound.allowed(stream, token, head)) << "k" << k << "v" << v;
            });
        }
}

// One cell with weight 1 and 63 with 1/600 each, too little for 7 bits: the dither keeps their total.
TEST(AttentionAccuracy, ManySmallWeightsKeepTheirTotal) {
    AttentionProblem problem({64, 64, 1, 1, 1, 64, 4, 4, Mask::kCausal, 1, 0, false, 0, 0, 0});
    Random random(13);
    const std::vector<float> large = random.normals(64), small = random.normals(64);
    for (int64_t cell = 0; cell < 64; ++cell) {
        problem.set_value(cell, cell == 5 ? large : small);
        problem.mask[cell] = float_to_half(cell == 5 ? 0.0f : -std::log(600.0f));
    }
    const std::vector<float> reference = problem.reference(), out = problem.run();
    EXPECT_LE(distance(problem.row(out, 0, 0, 0), problem.row(reference, 0, 0, 0)),
              kOrdinary * weight_error(4) * problem.largest_value());
}

// softmax(q k^T / sqrt(d)) v on the original rows of head 0, stream 0, without mask.
std::vector<float> dense_attention(const AttentionProblem& problem) {
    const AttentionCase& c = problem.description();
    const auto part = [](const std::vector<float>& rows, int64_t row, int64_t width, int n) {
        return std::span(rows).subspan(row * width, n);
    };
    std::vector<double> out(c.head_dim_v);
    double sum = 0;
    for (int64_t cell = 0; cell < c.n_kv; ++cell) {
        const auto key = part(problem.dense_k, cell, problem.keys().width(), c.head_dim_k);
        const auto value = part(problem.dense_v, cell, problem.values().width(), c.head_dim_v);
        const double p = std::exp(dot(problem.query(0, 0, 0), key) / std::sqrt(static_cast<double>(c.head_dim_k)));
        sum += p;
        for (int d = 0; d < c.head_dim_v; ++d) out[d] += p * value[d];
    }
    for (double& x : out) x /= sum;
    return {out.begin(), out.end()};
}

TEST(AttentionAccuracy, EightBitsAreCloseToDenseAttentionOnTheOriginal) {
    for (int head_dim : {64, 80, 128}) {
        for (bool scaled : {false, true}) {
            const AttentionProblem problem(
                {head_dim, head_dim, 2, 2, 1, 200, 8, 8, Mask::kNone, 1, 0, false, 0, 0, 1, scaled});
            const std::vector<float> dense = dense_attention(problem), out = problem.run();
            const double allowed =
                scaled ? 0.16 : 0.02;  // scales of 1/8 to 8 that fit nothing: errors 7.7 times as large
            EXPECT_LE(distance(problem.row(out, 0, 0, 0), dense), allowed * norm(dense)) << head_dim;
        }
    }
}

// Where every cell is exact, only float rounding is left, whatever the codes are.
TEST(AttentionAccuracy, ExactRowsAreAttendedToAsTheyAre) {
    for (const ExactCells& exact : {ExactCells{0, 200}, ExactCells{200, 0}, ExactCells{50, 150}}) {
        const AttentionProblem problem({64, 80, 2, 2, 1, 200, 2, 2, Mask::kNone, 1, 0, false, 0, 0, 1, false, exact});
        const std::vector<float> dense = dense_attention(problem), out = problem.run();
        EXPECT_LE(distance(problem.row(out, 0, 0, 0), dense), 1e-3 * norm(dense)) << exact.name();
    }
    const AttentionProblem without({64, 80, 2, 2, 1, 200, 2, 2});
    EXPECT_GT(distance(without.row(without.run(), 0, 0, 0), dense_attention(without)),
              0.1 * norm(dense_attention(without)));
}

// However the tokens were cut into ubatches, the last one sees the same.
TEST(AttentionExactRows, UbatchesDoNotMatter) {
    const AttentionCase c{64, 64, 2, 2, 1, 150, 2, 3, Mask::kCausal, 1, 0, false, 0, 0, 1, false, {3, 20}};
    const std::vector<float> expected = AttentionProblem(c).run();
    for (const std::vector<int64_t>& ubatches : {std::vector<int64_t>{30, 20}, {1, 1, 47, 1}, {49, 1}, {7, 7, 7, 29}}) {
        AttentionProblem problem(c);
        problem.write_exact(100, ubatches);
        // Its query is the last of a ubatch of which the others are not asked for.
        EXPECT_TRUE(same_bits(problem.run(), expected)) << ubatches.size();
    }
}

// ---- invariance: the same bits
// ----------------------------------------------------------------------------------------

TEST_P(Attention, AllIsasGiveTheSameBits) {
    for (Isa isa : available_isas()) EXPECT_TRUE(same_bits(problem_.run(isa), expected_)) << isa_name(isa);
}

TEST_P(Attention, ThreadsAndSplitDoNotMatter) {
    for (int n_threads : {2, 8}) {
        const auto out = problem_.run(available_isas().back(), n_threads, run_on_threads);
        EXPECT_TRUE(same_bits(out, expected_)) << n_threads << " threads";
    }
}

TEST_P(Attention, OrderOfItemsDoesNotMatter) {
    for (int n_threads : {1, 8}) {
        EXPECT_TRUE(same_bits(problem_.run(available_isas().back(), n_threads, run_reversed), expected_)) << n_threads;
        EXPECT_TRUE(same_bits(problem_.run(available_isas().back(), n_threads, run_shuffled), expected_)) << n_threads;
    }
}

TEST_P(Attention, ARowAloneIsTheRowInTheBatch) {
    const AttentionCase& c = GetParam();
    AttentionProblem one(c);
    for (int64_t stream = 0; stream < c.n_stream; ++stream)
        for (int64_t token = 0; token < c.n_tokens; token += 1 + c.n_tokens / 4) {
            // Stored alone too, if that matters: a query of the second stream would otherwise not find its row.
            if (c.exact.any()) one.write_exact(c.n_kv - c.n_tokens, std::vector<int64_t>(token + 1, 1));
            const std::vector<float> alone = one.run_changed([&](AttentionShape& s, AttentionInputs& in) {
                const auto skip = [&](auto* p, size_t token_stride, size_t stream_stride) {
                    return at_byte(p, token * token_stride + stream * stream_stride);
                };
                in.q = skip(in.q, in.q_token_stride, in.q_stream_stride);
                in.out = skip(in.out, in.out_token_stride, in.out_stream_stride);
                if (in.mask) in.mask = skip(in.mask, in.mask_token_stride, in.mask_stream_stride);
                in.k_first_stream += stream;
                in.v_first_stream += stream;
                s.n_tokens = s.n_stream = 1;
            });
            for (int head = 0; head < c.n_head(); ++head) {
                EXPECT_EQ(
                    0, std::memcmp(problem_.row(alone, stream, token, head).data(),
                                   problem_.row(expected_, stream, token, head).data(), sizeof(float) * c.head_dim_v))
                    << stream << " " << token << " " << head;
            }
        }
}

TEST_P(AttentionWithMask, PaddingDoesNotMatter) {
    const auto padded =
        problem_.run_changed([](AttentionShape& s, AttentionInputs&) { s.n_kv += AttentionProblem::kPadding; });
    EXPECT_TRUE(same_bits(padded, expected_));
}

TEST_P(AttentionWithoutMask, IsAMaskOfZeros) {
    const std::vector<uint16_t> zeros(problem_.mask_token() * GetParam().n_tokens * GetParam().n_stream);
    EXPECT_TRUE(same_bits(problem_.run_changed([&](AttentionShape&, AttentionInputs& in) { in.mask = zeros.data(); }),
                          expected_));
}

TEST_P(AttentionOfManyRows, OtherQueriesDoNotMatter) {
    const AttentionCase& c = GetParam();
    AttentionProblem other(c);
    Random random(12);
    const std::span<float> kept = other.query(0, c.n_tokens - 1, 0);
    const std::vector<float> saved(kept.begin(), kept.end());
    for (float& x : other.q) x = static_cast<float>(3 * random.normal());
    std::copy(saved.begin(), saved.end(), kept.begin());
    const std::vector<float> out = other.run();
    const auto a = problem_.row(expected_, 0, c.n_tokens - 1, 0), b = other.row(out, 0, c.n_tokens - 1, 0);
    EXPECT_EQ(0, std::memcmp(a.data(), b.data(), a.size_bytes()));
    EXPECT_FALSE(same_bits(out, expected_));
}

// Two blocks and a part, on values exact in binary on every platform: the bits are the same everywhere and stay so.
TEST(AttentionBits, AreGolden) {
    struct Golden {
        Codes keys, values;
        uint64_t hash;
    };
    constexpr Golden kGolden[] = {{4, 4, 0xb92d75a58a747d06},
                                  {centered(8), 6, 0x982a8c66eb137f78},
                                  {centered(trellis(4)), trellis(3), 0x8606d69ef4d6154e}};
    for (const Golden& golden : kGolden) {
        AttentionProblem problem({64, 80, 2, 2, 1, 150, golden.keys, golden.values});
        Random random(14);
        const auto bells = [&](int64_t n) {
            std::vector<float> values(n);
            for (float& x : values) x = random.bell();
            return values;
        };
        for (int64_t cell = 0; cell < 150; ++cell) {
            problem.set_key(cell, bells(128));
            problem.set_value(cell, bells(160));
        }
        problem.q = bells(std::ssize(problem.q));
        for (Isa isa : available_isas()) {
            std::vector<float> rows;
            const std::vector<float> out = problem.run(isa);
            problem.for_rows(out, [&](int64_t, int64_t, int, std::span<const float> row) {
                rows.insert(rows.end(), row.begin(), row.end());
            });
            EXPECT_EQ(fnv1a(rows.data(), sizeof(float) * rows.size()), golden.hash)
                << "k" << golden.keys << "v" << golden.values << " " << isa_name(isa) << std::hex << " 0x"
                << fnv1a(rows.data(), sizeof(float) * rows.size());
        }
    }
}

// ---- special rows
// -----------------------------------------------------------------------------------------------------

TEST_P(Attention, WritesOnlyItsRows) {
    size_t inside = 0;
    problem_.for_rows(expected_, [&](int64_t, int64_t, int, std::span<const float> row) { inside += row.size(); });
    const auto untouched = std::count(expected_.begin(), expected_.end(), AttentionProblem::kUntouched);
    EXPECT_EQ(static_cast<size_t>(untouched) + inside, expected_.size());
}

TEST_P(Attention, FullyMaskedRowsAreZero) {
    int rows = 0;
    problem_.for_rows(expected_, [&](int64_t stream, int64_t token, int, std::span<const float> row) {
        if (!problem_.fully_masked(stream, token)) return;
        ++rows;
        for (float x : row) EXPECT_EQ(x, 0.0f);
    });
    EXPECT_EQ(rows > 0, GetParam().mask == Mask::kSomeRowsFullyMasked);
}

TEST_P(Attention, ANonFiniteQueryGivesNanInItsRowOnly) {
    const AttentionCase& c = GetParam();
    AttentionProblem broken(c);  // made once: encoding its cells takes most of the time
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 3e38f}) {
        const int64_t token = c.n_tokens - 1;
        const std::span<float> q = broken.query(0, token, 0);
        std::fill(q.begin(), q.begin() + 2, bad);
        const std::vector<float> out = broken.run();
        broken.for_rows(out, [&](int64_t stream, int64_t t, int head, std::span<const float> row) {
            const auto before = problem_.row(expected_, stream, t, head);
            if (stream == 0 && t == token && head == 0) {
                for (float x : row) EXPECT_TRUE(std::isnan(x));
            } else {
                EXPECT_EQ(0, std::memcmp(row.data(), before.data(), row.size_bytes()))
                    << stream << " " << t << " " << head;
            }
        });
        EXPECT_TRUE(same_bits(broken.run(Isa::kScalar), out)) << bad;
    }
}

TEST(AttentionRows, SubnormalQueriesAttendUniformly) {
    const AttentionCase c{64, 64, 1, 1, 1, 100, 4, 8};
    AttentionProblem tiny(c), zero(c);
    std::fill(tiny.q.begin(), tiny.q.end(), 1e-40f);
    std::fill(zero.q.begin(), zero.q.end(), 0.0f);
    for (Isa isa : available_isas()) EXPECT_TRUE(same_bits(tiny.run(isa), zero.run(isa))) << isa_name(isa);
}

TEST(AttentionRows, AFullyMaskedRowWithSinksIsZero) {
    const AttentionProblem problem({64, 64, 2, 1, 3, 100, 4, 4, Mask::kSomeRowsFullyMasked, 1, 0, true});
    const std::vector<float> out = problem.run();
    for (float x : problem.row(out, 0, 0, 1)) EXPECT_EQ(x, 0.0f);
}

// ---- plans
// ------------------------------------------------------------------------------------------------------------

Result<AttentionPlan> plan_for(const AttentionProblem& problem, const std::function<void(AttentionShape&)>& change) {
    AttentionShape s = problem.shape();
    change(s);
    return AttentionPlan::create(s, problem.keys().codec, problem.values().codec, cpu_engine(available_isas().back()));
}

void expect_refused(const Result<AttentionPlan>& plan, Error error, const std::string& reason) {
    ASSERT_FALSE(plan.ok()) << reason;
    EXPECT_EQ(plan.status().error(), error);
    EXPECT_NE(plan.status().message().find(reason), std::string::npos) << plan.status().message();
}

TEST(AttentionPlan, UnsupportedShapesAreRefusedWithTheReason) {
    const AttentionProblem problem({64, 80, 3, 2});
    for (int head_dim : {0, 8, 24, 528, 576}) {
        expect_refused(plan_for(problem, [&](AttentionShape& s) { s.head_dim_k = head_dim; }), Error::kUnsupported,
                       std::to_string(head_dim));
        expect_refused(plan_for(problem, [&](AttentionShape& s) { s.head_dim_v = head_dim; }), Error::kUnsupported,
                       std::to_string(head_dim));
    }
    for (int n_head : {0, -2, 5}) {
        expect_refused(plan_for(problem, [&](AttentionShape& s) { s.n_head = n_head; }), Error::kUnsupported, "n_head");
    }
}

TEST(AttentionPlan, InconsistentArgumentsAreRefused) {
    const AttentionProblem problem({64, 80, 3, 2});
    const auto refused = [&](auto change, const char* reason) {
        expect_refused(plan_for(problem, change), Error::kInvalidArgument, reason);
    };
    refused([](AttentionShape& s) { s.n_tokens = 0; }, "n_tokens");
    refused([](AttentionShape& s) { s.n_kv = 0; }, "n_kv");
    refused([](AttentionShape& s) { s.n_stream = 0; }, "n_stream");
    refused([](AttentionShape& s) { s.n_threads = 0; }, "n_threads");
    refused([](AttentionShape& s) { s.head_dim_k = 32; }, "key");
    refused([](AttentionShape& s) { s.head_dim_v = 64; }, "value");
    refused([](AttentionShape& s) { s.n_head_kv = 3; }, "key");
}

TEST(AttentionPlan, SplitsLongContextsForThreadsOnly) {
    const AttentionProblem problem({64, 64, 1, 1, 1, 1300});
    const auto split = [&](int n_threads) {
        return plan_for(problem, [&](AttentionShape& s) { s.n_threads = n_threads; })->geometry().split();
    };
    EXPECT_FALSE(split(1));
    EXPECT_TRUE(split(8));
    EXPECT_FALSE(plan_for(AttentionProblem({64, 64, 1, 1, 1, 512}), [](AttentionShape& s) { s.n_threads = 8; })
                     ->geometry()
                     .split());
}

TEST(Alibi, SlopesAreThoseOfThePaper) {
    for (int head = 0; head < 8; ++head)
        EXPECT_FLOAT_EQ(alibi_slope(8, 8, head), std::exp2(-static_cast<float>(head + 1)));
    EXPECT_FLOAT_EQ(alibi_slope(8, 12, 8), std::exp2(-0.5f));  // heads beyond the power of two interleave
    EXPECT_FLOAT_EQ(alibi_slope(8, 12, 9), std::exp2(-1.5f));
    EXPECT_EQ(alibi_slope(0, 8, 3), 1.0f);
}

}  // namespace
}  // namespace tq::test
