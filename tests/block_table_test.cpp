// BlockTable against a plain model: what each block's record holds is a number that writes change.
#include "turboquant/cache/block_table.h"

#include <algorithm>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/random.h"

namespace tq::test {
namespace {

constexpr int64_t kStreams = 4, kBlocks = 6;

// The table and the records' contents beside what each stream should read.
class Tables {
  public:
    explicit Tables(int64_t n_records) : table_(kStreams, kBlocks, n_records), contents_(n_records, 0) {}

    // Writes `value` to a block, as an engine does: own it, make the copies, store.
    bool write(int64_t stream, int64_t block, int value) {
        std::vector<BlockTable::Copy> copies;
        if (!table_.own(stream, block, 1, copies).ok()) {
            EXPECT_TRUE(copies.empty());
            return false;
        }
        for (const auto& [from, to] : copies) contents_[to] = contents_[from];
        contents_[table_.record(stream, block)] = value;
        expected_[{stream, block}] = value;
        return true;
    }
    void share(int64_t from, int64_t to, int64_t n) {
        table_.share(from, to, n);
        if (from == to) return;
        for (int64_t block = 0; block < kBlocks; ++block) {
            expected_.erase({to, block});
            if (block < n && expected_.contains({from, block})) expected_[{to, block}] = expected_[{from, block}];
        }
    }
    void release(int64_t stream, int64_t first) {
        table_.release(stream, first);
        for (int64_t block = first; block < kBlocks; ++block) expected_.erase({stream, block});
    }
    void grow(int64_t n_records) {
        table_.grow(n_records);
        contents_.resize(n_records, 0);
    }

    void check() const {
        std::map<int32_t, int> owners;
        for (int64_t stream = 0; stream < kStreams; ++stream) {
            for (int64_t block = 0; block < kBlocks; ++block) {
                const int32_t record = table_.record(stream, block);
                ASSERT_EQ(table_.data()[stream * kBlocks + block], record);
                const auto expected = expected_.find({stream, block});
                ASSERT_EQ(contents_[record], expected == expected_.end() ? 0 : expected->second)
                    << stream << ":" << block;
                if (record != BlockTable::kEmpty) ++owners[record];
            }
        }
        ASSERT_EQ(table_.n_free() + std::ssize(owners), table_.n_records() - 1);
        ASSERT_EQ(contents_[BlockTable::kEmpty], 0);
    }
    const BlockTable& table() const { return table_; }

  private:
    BlockTable table_;
    std::vector<int> contents_;
    std::map<std::pair<int64_t, int64_t>, int> expected_;
};

TEST(BlockTable, EachStreamReadsWhatItWroteOrShared) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        Random random(seed);
        Tables tables(12);
        int value = 0;
        bool refused = false;
        for (int step = 0; step < 400; ++step) {
            const int64_t stream = random.below(kStreams), block = random.below(kBlocks);
            switch (random.below(8)) {
                case 0:
                    tables.share(random.below(kStreams), stream, block);
                    break;
                case 1:
                    tables.release(stream, block);
                    break;
                case 2:
                    if (step > 300) tables.grow(tables.table().n_records() + random.below(3));
                    break;
                default:
                    refused |= !tables.write(stream, block, ++value);
            }
            tables.check();
            if (HasFatalFailure()) FAIL() << "seed " << seed << " step " << step;
        }
        EXPECT_TRUE(refused) << "12 records are never enough";
    }
}

TEST(BlockTable, ForksShareOnePrefix) {
    BlockTable table(kStreams, kBlocks, 20);
    std::vector<BlockTable::Copy> copies;
    ASSERT_TRUE(table.own(0, 0, 5, copies).ok());
    for (int64_t fork = 1; fork < kStreams; ++fork) table.share(0, fork, 5);
    EXPECT_EQ(table.n_free(), 19 - 5);
    copies.clear();
    for (int64_t fork = 0; fork < kStreams; ++fork) ASSERT_TRUE(table.own(fork, 4, 1, copies).ok());
    EXPECT_EQ(copies.size(), 3u);  // the last one that writes to it has it alone
    EXPECT_EQ(table.n_free(), 19 - 8);
    for (int64_t fork = 1; fork < kStreams; ++fork) EXPECT_EQ(table.record(fork, 3), table.record(0, 3));
}

TEST(BlockTable, RefusalsSayWhatIsMissing) {
    BlockTable table(1, kBlocks, 4);
    std::vector<BlockTable::Copy> copies;
    const Status status = table.own(0, 0, 4, copies);
    EXPECT_EQ(status.error(), Error::kOutOfMemory);
    EXPECT_NE(status.message().find("4 wanted, 3 of 3 free"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace tq::test
