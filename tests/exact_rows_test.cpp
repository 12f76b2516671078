// ExactRows against a plain model of what a query may take exactly.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/support/random.h"
#include "turboquant/base/half.h"
#include "turboquant/cache/exact_rows.h"
#include "turboquant/cache/kv_cache.h"

namespace tq::test {
namespace {

constexpr int64_t kWidth = 4, kCells = 40, kStreams = 2;

// Every write of a stream in order. A cell is exact for query number q if its last write is one of the n_recent up to q, or if
// it is one of the sinks; unless it was forgotten since, or pushed out by what was committed.
class Model {
  public:
    explicit Model(const ExactCells& cells) : cells_(cells) {}

    void write(int64_t cell, float value) {
        Stream& s = streams_[cell / kCells];
        s.last_write[cell % kCells] = {s.n_written++, value};
    }
    void forget(int64_t cell) { streams_[cell / kCells].last_write.erase(cell % kCells); }
    void commit() {
        for (Stream& s : streams_) s.n_committed = s.n_written;
    }
    int64_t n_written(int64_t stream) const { return streams_[stream].n_written; }

    // Cell -> value.
    std::map<int64_t, float> exact(int64_t stream, int64_t number) const {
        const Stream& s = streams_[stream];
        std::map<int64_t, float> exact;
        for (const auto& [cell, write] : s.last_write) {
            const bool recent = write.number > number - cells_.n_recent && write.number <= number && write.number >= s.n_committed - cells_.n_recent;
            if (cell < cells_.n_sink || recent) exact[cell] = write.value;
        }
        return exact;
    }

  private:
    struct Write {
        int64_t number;
        float value;
    };
    struct Stream {
        int64_t n_written = 0, n_committed = 0;
        std::map<int64_t, Write> last_write;
    };
    ExactCells cells_;
    Stream streams_[kStreams];
};

// One side's rows; row values are all the same number.
class Rows {
  public:
    explicit Rows(const ExactCells& cells)
        : memory_(ExactRows::bytes(cells, kWidth, kStreams) / sizeof(uint16_t)), rows(cells, kWidth, kCells, kStreams, memory_.data()) {}

    void write(const std::vector<int64_t>& cells, const std::vector<float>& values) {
        rows.commit();   // before the staging memory goes
        staging_.assign(cells.size() * kWidth, 0);
        rows.begin(cells, staging_.data());
        for (size_t i = 0; i < cells.size(); ++i) {
            const float row[kWidth] = {values[i], values[i], values[i], values[i]};
            rows.store(static_cast<int64_t>(i), row);
        }
    }

  private:
    std::vector<uint16_t> memory_, staging_;

  public:
    ExactRows rows;
};

std::map<int64_t, float> exact_of_query(const ExactRows& k, const ExactRows& v, int64_t stream, int64_t token, int64_t n_tokens) {
    std::map<int64_t, float> exact;
    for_exact_rows(k, v, stream, stream, token, n_tokens, [&](const ExactRow& row) {
        EXPECT_FALSE(exact.contains(row.cell)) << "cell " << row.cell << " twice";
        exact[row.cell] = half_to_float(row.k[kWidth - 1]);
        EXPECT_EQ(half_to_float(row.v[0]), exact[row.cell]);
    });
    return exact;
}

struct Kept {
    ExactCells cells;
    int seed;
};
void PrintTo(const Kept& kept, std::ostream* out) { *out << kept.cells.name() << " seed " << kept.seed; }

class ExactRowsOfAModel : public testing::TestWithParam<Kept> {};
INSTANTIATE_TEST_SUITE_P(Cells, ExactRowsOfAModel,
                         testing::Values(Kept{{0, 8}, 1}, Kept{{3, 8}, 2}, Kept{{3, 0}, 3}, Kept{{5, 1}, 4}, Kept{{0, 64}, 5}, Kept{{40, 3}, 6}));

// Ubatches of any size to any cells of any stream, each cell at most once in a ubatch but for some; cells forgotten between.
TEST_P(ExactRowsOfAModel, EveryQueryTakesWhatTheModelSays) {
    const ExactCells cells = GetParam().cells;
    Random random(static_cast<uint64_t>(GetParam().seed));
    Model model(cells);
    Rows k(cells), v(cells);
    float value = 0;
    for (int step = 0; step < 300; ++step) {
        const int64_t n = random.below(4) == 0 ? 1 : random.below(20) + 1, first = random.below(kCells * kStreams);
        std::vector<int64_t> written;
        std::vector<float> values;
        for (int64_t i = 0; i < n; ++i) {
            written.push_back(random.below(5) == 0 ? random.below(kCells * kStreams) : (first + i) % (kCells * kStreams));
            values.push_back(value = value < 2000 ? value + 1 : 0);   // halves that are exact
        }
        model.commit();
        for (int64_t i = 0; i < n; ++i) model.write(written[i], values[i]);
        k.write(written, values);
        v.write(written, values);
        int64_t in_stream[kStreams] = {};
        for (int64_t cell : written) ++in_stream[cell / kCells];
        for (int64_t stream = 0; stream < kStreams; ++stream) {
            for (int64_t token = 0; token < in_stream[stream]; ++token) {
                const int64_t number = model.n_written(stream) - in_stream[stream] + token;
                ASSERT_EQ(exact_of_query(k.rows, v.rows, stream, token, in_stream[stream]), model.exact(stream, number)) << step << " " << token;
            }
            // A query from elsewhere takes the newest window.
            ASSERT_EQ(exact_of_query(k.rows, v.rows, stream, 0, 1000), model.exact(stream, model.n_written(stream) - 1)) << step;
        }
        if (random.below(3) == 0) {
            const int64_t cell = random.below(kCells * kStreams);
            model.forget(cell);
            if (random.below(2) == 0) {
                k.rows.forget(cell, 1);   // one side is enough
                v.rows.forget(cell, random.below(2));
            } else {
                v.rows.forget(cell, 1);
            }
        }
    }
}

TEST(ExactRows, AfterTheCommitCellsAreFound) {
    const ExactCells cells{2, 3};
    Rows k(cells);
    k.write({0, 5, 6, 7, 8, 45}, {1, 2, 3, 4, 5, 6});
    EXPECT_EQ(k.rows.find(8), nullptr) << "still staged";
    k.rows.commit();
    const auto found = [&](int64_t cell) { return k.rows.find(cell) ? half_to_float(*k.rows.find(cell)) : -1; };
    EXPECT_EQ(found(0), 1);
    EXPECT_EQ(found(1), -1) << "a sink never written";
    EXPECT_EQ(found(5), -1) << "pushed out";
    EXPECT_EQ(found(6), 3);
    EXPECT_EQ(found(8), 5);
    EXPECT_EQ(found(45), 6) << "of another stream";
    for (int64_t cell : {-1, 80, 1000}) EXPECT_EQ(k.rows.find(cell), nullptr);
    k.rows.forget(-5, 100000);
    for (int64_t cell = 0; cell < 80; ++cell) EXPECT_EQ(k.rows.find(cell), nullptr);
}

TEST(ExactRows, WhatIsAbandonedIsNotKept) {
    Rows k({1, 3});
    k.write({5, 6, 7}, {1, 2, 3});
    k.write({0, 8, 9, 10, 11}, {4, 5, 6, 7, 8});
    k.rows.abandon();
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 0, 1), (std::map<int64_t, float>{{0, 4}}));
    for (int64_t cell = 1; cell < 20; ++cell) EXPECT_EQ(k.rows.find(cell), nullptr) << cell;
    k.write({12}, {9});
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 0, 1), (std::map<int64_t, float>{{0, 4}, {12, 9}}));
    k.write({13, 14}, {10, 11});
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 0, 2), (std::map<int64_t, float>{{0, 4}, {12, 9}, {13, 10}}));
}

TEST(ExactRows, AnAdoptedRowIsTheNewest) {
    Rows k({1, 2});
    k.write({5, 6, 7}, {1, 2, 3});
    const float row[kWidth] = {4, 4, 4, 4};
    for (int64_t cell : {9, 0}) ExactRows::convert(row, kWidth, k.rows.adopt(cell));
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 0, 1), (std::map<int64_t, float>{{0, 4}, {9, 4}}));
    EXPECT_EQ(k.rows.adopt(-1), nullptr);
    EXPECT_EQ(Rows({1, 0}).rows.adopt(3), nullptr);
}

TEST(ExactRows, KeysAndValuesMayHaveBeenWrittenUnequallyOften) {
    Rows k({0, 3}), v({0, 3});
    k.write({4, 5}, {1, 2});
    k.rows.abandon();
    for (Rows* side : {&k, &v}) side->write({6, 7, 8, 9}, {3, 4, 5, 6});
    EXPECT_EQ(exact_of_query(k.rows, v.rows, 0, 3, 4), (std::map<int64_t, float>{{7, 4}, {8, 5}, {9, 6}}));
    EXPECT_EQ(exact_of_query(k.rows, v.rows, 0, 0, 4), (std::map<int64_t, float>{{6, 3}}));
}

TEST(ExactRows, CellsThatThereAreNotAreLeftOut) {
    Rows k({1, 4});
    k.write({-1, 80, int64_t{1} << 40, 3}, {1, 2, 3, 4});
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 0, 1), (std::map<int64_t, float>{{3, 4}}));
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 1, 0, 1), (std::map<int64_t, float>{}));
}

TEST(ExactRows, RowsAreClampedToHalvesAndNanIsZero) {
    const float row[] = {1e30f, -1e30f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 0.1f};
    uint16_t halves[5];
    ExactRows::convert(row, 5, halves);
    EXPECT_EQ(half_to_float(halves[0]), 65504.0f);
    EXPECT_EQ(half_to_float(halves[1]), -65504.0f);
    EXPECT_EQ(half_to_float(halves[2]), 0.0f);
    EXPECT_EQ(half_to_float(halves[3]), 65504.0f);
    EXPECT_EQ(halves[4], float_to_half(0.1f));
}

// ---- in a KvCache ---------------------------------------------------------------------------------------------------

KvCacheParams params_with(const ExactCells& exact) {
    KvCacheParams params{Preset{4, 4}, 16, 32, 2, 40, 2};
    params.exact = exact;
    return params;
}

std::set<int64_t> exact_cells(const KvCache& cache, int64_t stream, int64_t token, int64_t n_tokens) {
    std::set<int64_t> cells;
    for_exact_rows(*cache.exact_keys(), *cache.exact_values(), stream, stream, token, n_tokens, [&](const ExactRow& row) { cells.insert(row.cell); });
    return cells;
}

TEST(ExactRowsOfAKvCache, FollowItsOperations) {
    using Cells = std::set<int64_t>;
    KvCache cache = std::move(KvCache::create(params_with({1, 3}), Isa::kScalar).value());
    const std::vector<float> k(40 * 32, 1.0f), v(40 * 64, 2.0f);
    ASSERT_TRUE(cache.append(0, 10, k.data(), v.data()).ok());
    ASSERT_TRUE(cache.append(1, 4, k.data(), v.data()).ok());
    EXPECT_EQ(exact_cells(cache, 0, 5, 10), (Cells{0, 3, 4, 5})) << "a stream's ubatch is not touched by another's";
    EXPECT_EQ(exact_cells(cache, 0, 9, 10), (Cells{0, 7, 8, 9}));
    EXPECT_EQ(exact_cells(cache, 1, 3, 4), (Cells{0, 1, 2, 3}));
    ASSERT_TRUE(cache.truncate(0, 9).ok());
    EXPECT_EQ(exact_cells(cache, 0, 9, 10), (Cells{0, 7, 8}));
    ASSERT_TRUE(cache.append(0, 1, k.data(), v.data()).ok());
    EXPECT_EQ(exact_cells(cache, 0, 0, 1), (Cells{0, 8, 9}));
    ASSERT_TRUE(cache.copy(1, 0, 0, 8, 1).ok());
    EXPECT_EQ(exact_cells(cache, 0, 0, 1), (Cells{0, 9}));
    ASSERT_TRUE(cache.trim_front(0, 1).ok());
    EXPECT_EQ(exact_cells(cache, 0, 0, 1), Cells{}) << "all cells moved";
    cache.clear();
    EXPECT_EQ(exact_cells(cache, 1, 3, 4), Cells{});
}

TEST(ExactRowsOfAKvCache, AreCountedInItsBytes) {
    const size_t plain = KvCache::create(params_with({}), Isa::kScalar)->bytes();
    EXPECT_EQ(KvCache::create(params_with({4, 10}), Isa::kScalar)->bytes(), plain + 2u * 14 * (32 + 64) * 2);
    EXPECT_EQ(KvCache::create(params_with({}), Isa::kScalar)->exact_keys(), nullptr);
}

TEST(ExactRowsOfAKvCache, BadNumbersAreRefused) {
    for (const ExactCells& cells : {ExactCells{-1, 0}, ExactCells{0, -1}, ExactCells{kMaxExactCells + 1, 0}, ExactCells{0, kMaxExactCells + 1}}) {
        const auto cache = KvCache::create(params_with(cells), Isa::kScalar);
        ASSERT_FALSE(cache.ok());
        EXPECT_EQ(cache.status().error(), Error::kInvalidArgument);
        EXPECT_NE(cache.status().message().find("0 to 65536"), std::string::npos) << cache.status().message();
    }
}

}  // namespace
}  // namespace tq::test
