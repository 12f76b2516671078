// Super-chunks: where they lie, and that a split of contexts that have large ones changes no bit.
#include <gtest/gtest.h>

#include "tests/support/attention_variants.h"

namespace tq::test {
namespace {

// As the definition reads: 512 * max(1, 2^floor(log2(c / 32768))).
int64_t cells_of_one_that_begins_at(int64_t cell) {
    int64_t cells = 512;
    for (int64_t doubled = 2 * 32768; doubled <= cell; doubled *= 2) cells *= 2;
    return cells;
}

TEST(SuperChunks, FollowTheirDefinition) {
    int64_t begin = 0;
    for (int64_t index = 0; index < 2000; ++index) {
        const int64_t end = begin + cells_of_one_that_begins_at(begin);
        ASSERT_EQ(super_chunk_begin(index), begin);
        for (int64_t cell : {begin, begin + 1, (begin + end) / 2, end - 1}) {
            ASSERT_EQ(super_chunk_of(cell), index) << cell;
            ASSERT_EQ(n_super_chunks(cell + 1), index + 1) << cell;
        }
        ASSERT_EQ(begin % kChunkCells, 0);
        if (begin < 65536) {
            ASSERT_EQ(end - begin, kChunkCells);
        } else {
            ASSERT_LE(64 * (end - begin), begin);
        }
        begin = end;
    }
    EXPECT_GT(begin, int64_t{1} << 40);
    EXPECT_EQ(n_super_chunks(0), 0);
    EXPECT_EQ(n_super_chunks(int64_t{1} << 20), 384);
}

TEST(SuperChunks, EveryCellIsInTheOneThatBeginsBeforeIt) {
    for (int64_t cell = 0; cell < 300000; ++cell) {
        const int64_t index = super_chunk_of(cell);
        ASSERT_LE(super_chunk_begin(index), cell);
        ASSERT_GT(super_chunk_begin(index + 1), cell);
    }
}

// A block table of records that repeat: a long context for a little memory.
class LongContext {
  public:
    static constexpr int64_t kRecords = 7;  // no divisor of a chunk's blocks, so that chunks differ

    explicit LongContext(const AttentionCase& c) : problem_(c) {}

    std::vector<float> run(int64_t n_kv, int n_threads, LseRows& lse,
                           const AttentionProblem::Change& change = {}) const {
        std::vector<int32_t> table(blocks_of_cells(n_kv));
        for (size_t block = 0; block < table.size(); ++block) table[block] = static_cast<int32_t>(block % kRecords);
        return problem_.run(available_isas().back(), n_threads, AttentionProblem::run_in_order,
                            [&](AttentionShape& s, AttentionInputs& in) {
                                s.n_kv = in.k.n_cells = in.v.n_cells = n_kv;
                                in.k.block_table = in.v.block_table = table.data();
                                lse.ask(in);
                                if (change) change(s, in);
                            });
    }

  private:
    AttentionProblem problem_;
};

TEST(SuperChunks, ASplitDoesNotMatter) {
    const AttentionCase c{32, 32, 2, 1, 2, 64 * LongContext::kRecords, 4, 4};
    const LongContext context(c);
    for (int64_t n_kv : {int64_t{65536}, int64_t{65537}, int64_t{66100}, int64_t{70000}, int64_t{131072},
                         int64_t{131073}, int64_t{140001}}) {
        for (int64_t window : {int64_t{0}, int64_t{5000}, int64_t{66000}}) {
            const auto causal = [&](AttentionShape& s, AttentionInputs&) { s.causal = true, s.window = window; };
            LseRows expected_lse(c);
            const std::vector<float> expected = context.run(n_kv, 1, expected_lse, causal);
            for (int n_threads : {2, 3, 16, 64}) {
                LseRows lse(c);
                EXPECT_TRUE(same_bits(context.run(n_kv, n_threads, lse, causal), expected))
                    << n_kv << " cells, window " << window << ", " << n_threads << " threads";
                EXPECT_TRUE(same_bits(lse.values, expected_lse.values));
            }
        }
    }
}

// The last token sees all cells, and the one before all but one: as in a plan of its own.
TEST(SuperChunks, TheBatchDoesNotMatter) {
    const AttentionCase c{32, 32, 1, 1, 2, 64 * LongContext::kRecords, 4, 4};
    const LongContext context(c);
    constexpr int64_t kCells = 131073 + 64;
    for (int n_threads : {1, 8}) {
        LseRows both(c), alone(c);
        context.run(kCells, n_threads, both, [](AttentionShape& s, AttentionInputs&) { s.causal = true; });
        context.run(kCells - 1, 1, alone, [](AttentionShape& s, AttentionInputs&) { s.n_tokens = 1; });
        EXPECT_EQ(both.at(0, 0, 0), alone.at(0, 0, 0));
    }
}

TEST(SuperChunks, AMillionCellsNeedLittleMemory) {
    const PackedRows keys({Side::kKey, 4, 128, 8, 64}), values({Side::kValue, 4, 128, 8, 64});
    AttentionShape s{128, 128, 32, 8, 1, int64_t{1} << 20};
    s.n_threads = 16;
    const AttentionPlan plan =
        AttentionPlan::create(s, keys.codec, values.codec, cpu_engine(available_isas().back())).value();
    ASSERT_TRUE(plan.geometry().split());
    const size_t of_threads = static_cast<size_t>(s.n_threads) * plan.geometry().scratch_bytes;
    const size_t partials = plan.workspace_bytes() - of_threads;
    RecordProperty("bytes_without_threads_scratch", std::to_string(partials));
    RecordProperty("workspace_bytes", std::to_string(plan.workspace_bytes()));
    EXPECT_LT(partials, size_t{7} * 1024 * 1024 + 200000);
    EXPECT_LT(plan.workspace_bytes(), 10'000'000u) << "of 16 threads";
}

// Parts have even shares of the cells, however large the super-chunks are: the largest has a 64th of them.
TEST(SuperChunks, OfALongContextAreNoLargerThanA64th) {
    for (int64_t n_kv : {int64_t{70000}, int64_t{1} << 20, (int64_t{1} << 20) + 5000}) {
        const int64_t last = n_super_chunks(n_kv) - 1;
        EXPECT_LE(64 * (super_chunk_begin(last + 1) - super_chunk_begin(last)), n_kv);
    }
}

}  // namespace
}  // namespace tq::test
