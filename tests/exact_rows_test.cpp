// ExactRows against a plain model of what a query may take exactly.
#include "turboquant/cache/exact_rows.h"

#include <map>
#include <set>

#include <gtest/gtest.h>

#include "tests/support/random.h"
#include "turboquant/base/half.h"
#include "turboquant/cache/kv_cache.h"
#include "turboquant/cpu/engine.h"

namespace tq::test {
namespace {

constexpr int64_t kWidth = 4, kCells = 40, kStreams = 2;

// The rows of a stream in the order of writing. A query takes the sinks that it sees and the n_recent newest of the
// other rows that it sees, up to its own, of which at most n_kept() come into question.
class Model {
  public:
    explicit Model(const ExactCells& cells) : cells_(cells.fitted(kCells)) {}

    void begin(const std::vector<int64_t>& cells, const std::vector<float>& values) {
        for (Stream& s : streams_) commit(s);
        for (size_t i = 0; i < cells.size(); ++i) {
            forget(cells[i]);
            Stream& s = streams_[cells[i] / kCells];
            const int64_t cell = cells[i] % kCells;
            if (cell < cells_.n_sink) s.sinks[cell] = values[i];
            s.ubatch.push_back({cell < cells_.n_sink ? -1 : cell, values[i]});
        }
        for (Stream& s : streams_) {  // a row alone pushes out the oldest at once
            if (s.ubatch.size() == 1 && s.ubatch[0].cell >= 0) trim(s.kept, cells_.n_kept() - 1);
        }
    }
    void forget(int64_t cell) {
        Stream& s = streams_[cell / kCells];
        s.sinks.erase(cell % kCells);
        for (auto* rows : {&s.kept, &s.ubatch})
            for (Row& row : *rows)
                if (row.cell == cell % kCells) row.cell = -1;
    }
    int64_t n_in_ubatch(int64_t stream) const { return std::ssize(streams_[stream].ubatch); }

    // Cell -> value.
    template <class Visible>
    std::map<int64_t, float> exact(int64_t stream, int64_t token, Visible visible) const {
        const Stream& s = streams_[stream];
        std::map<int64_t, float> exact;
        for (const auto& [cell, value] : s.sinks)
            if (visible(cell)) exact[cell] = value;
        std::vector<Row> rows = s.kept;
        rows.insert(rows.end(), s.ubatch.begin(), s.ubatch.begin() + (token + 1));
        std::erase_if(rows, [](const Row& row) { return row.cell < 0; });
        int64_t met = 0, taken = 0;
        for (auto row = rows.rbegin(); row != rows.rend() && met < cells_.n_kept() && taken < cells_.n_recent;
             ++row, ++met) {
            if (visible(row->cell)) exact[row->cell] = row->value, ++taken;
        }
        return exact;
    }

  private:
    struct Row {
        int64_t cell;
        float value;
    };
    struct Stream {
        std::map<int64_t, float> sinks;
        std::vector<Row> kept, ubatch;
    };
    void commit(Stream& s) {
        s.kept.insert(s.kept.end(), s.ubatch.begin(), s.ubatch.end());
        s.ubatch.clear();
        trim(s.kept, cells_.n_kept());
    }
    static void trim(std::vector<Row>& rows, int64_t limit) {
        std::erase_if(rows, [](const Row& row) { return row.cell < 0; });
        if (std::ssize(rows) > limit) rows.erase(rows.begin(), rows.end() - std::max<int64_t>(limit, 0));
    }
    ExactCells cells_;
    Stream streams_[kStreams];
};

// One side's rows; row values are all the same number.
class Rows {
  public:
    explicit Rows(const ExactCells& cells)
        : memory_(ExactRows::bytes(cells, kWidth, kCells, kStreams) / sizeof(uint16_t)),
          rows(cells, kWidth, kCells, kStreams, memory_.data()) {}

    void write(const std::vector<int64_t>& cells, const std::vector<float>& values) {
        rows.commit();  // before the staging memory goes
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

constexpr auto kAll = [](int64_t) { return true; };

template <class Visible = decltype(kAll)>
std::map<int64_t, float> exact_of_query(const ExactRows& k, const ExactRows& v, int64_t stream, int64_t token,
                                        int64_t n_tokens, Visible visible = kAll) {
    std::map<int64_t, float> exact;
    for_exact_rows(k, v, stream, stream, token, n_tokens, visible, [&](const ExactRow& row) {
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
void PrintTo(const Kept& kept, std::ostream* out) {
    *out << kept.cells.name() << " seed " << kept.seed;
}

class ExactRowsOfAModel : public testing::TestWithParam<Kept> {};
INSTANTIATE_TEST_SUITE_P(Cells, ExactRowsOfAModel,
                         testing::Values(Kept{{0, 8}, 1}, Kept{{3, 8}, 2}, Kept{{3, 0}, 3}, Kept{{5, 1}, 4},
                                         Kept{{0, 64}, 5}, Kept{{40, 3}, 6}, Kept{{2, 5, 6}, 7}, Kept{{0, 3, 30}, 8}));

// Ubatches of any size to any cells of any stream, each cell at most once in a ubatch but for some; cells forgotten
// between.
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
            written.push_back(random.below(5) == 0 ? random.below(kCells * kStreams)
                                                   : (first + i) % (kCells * kStreams));
            values.push_back(value = value < 2000 ? value + 1 : 0);  // halves that are exact
        }
        model.begin(written, values);
        k.write(written, values);
        v.write(written, values);
        const auto some = [&](int64_t cell) { return (cell * 7 + step) % 5 != 0; };
        for (int64_t stream = 0; stream < kStreams; ++stream) {
            const int64_t n_tokens = model.n_in_ubatch(stream);
            for (int64_t token = 0; token < n_tokens; ++token) {
                ASSERT_EQ(exact_of_query(k.rows, v.rows, stream, token, n_tokens), model.exact(stream, token, kAll))
                    << step << " " << token;
                ASSERT_EQ(exact_of_query(k.rows, v.rows, stream, token, n_tokens, some),
                          model.exact(stream, token, some))
                    << step << " " << token;
            }
            // A query from elsewhere takes the newest window.
            ASSERT_EQ(exact_of_query(k.rows, v.rows, stream, 0, 1000), model.exact(stream, n_tokens - 1, kAll)) << step;
        }
        if (random.below(3) == 0) {
            const int64_t cell = random.below(kCells * kStreams);
            model.forget(cell);
            for (Rows* side : {&k, &v}) side->rows.forget(cell, 1);
        }
    }
}

// What is taken back is no longer seen: the window before it is whole, up to n_reserve rows.
TEST(ExactRows, RowsThatAreTakenBackCostTheWindowNothing) {
    for (int n_back = 1; n_back <= 9; ++n_back) {
        Rows k({1, 4, 8});
        k.write({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
        for (int round = 0; round < 5; ++round) {  // drafts of n_back rows, each rejected
            std::vector<int64_t> cells;
            for (int i = 0; i < n_back; ++i) cells.push_back(10 + i);
            k.write(cells, std::vector<float>(cells.size(), 99));
        }
        k.write({30}, {20});
        const auto seen = [](int64_t cell) { return cell < 10 || cell == 30; };
        std::map<int64_t, float> whole{{0, 10}, {7, 17}, {8, 18}, {9, 19}, {30, 20}};
        if (n_back > 8) whole.erase(7);  // 9 of 12 kept rows are drafts, one is the query's own
        EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 0, 1, seen), whole) << n_back;
    }
}

// Sequences of a unified cache take turns; each sees its own cells alone.
TEST(ExactRows, EachSequenceHasItsOwnWindow) {
    Rows k({0, 3, 9});
    for (int64_t i = 0; i < 8; ++i) k.write({i, 10 + i, 20 + i, 30 + i}, std::vector<float>(4, static_cast<float>(i)));
    for (int64_t sequence = 0; sequence < 4; ++sequence) {
        const auto own = [&](int64_t cell) { return cell / 10 == sequence; };
        const std::map<int64_t, float> last{{sequence * 10 + 5, 5}, {sequence * 10 + 6, 6}, {sequence * 10 + 7, 7}};
        EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, sequence, 4, own), last);
    }
}

TEST(ExactRows, OneSideWithoutTheRowHasCodesAlone) {
    Rows k({0, 3}), v({0, 3});
    for (Rows* side : {&k, &v}) side->write({4, 5, 6}, {1, 2, 3});
    v.rows.forget(5, 1);
    const auto exact = exact_of_query(k.rows, v.rows, 0, 2, 3);
    EXPECT_FALSE(exact.contains(5));
    for (const auto& [cell, value] : exact) EXPECT_EQ(value, static_cast<float>(cell - 3));
}

TEST(ExactRows, OfTwoRowsForOneSinkTheLastIsKept) {
    Rows k({2, 0});
    k.write({1, 0, 1}, {1, 2, 3});
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 2, 3), (std::map<int64_t, float>{{0, 2}, {1, 3}}));
    const int64_t cells[] = {1, 0, 1};
    uint16_t staging[3 * kWidth];
    k.rows.begin(cells, staging);
    const float earlier[kWidth] = {7, 7, 7, 7}, later[kWidth] = {8, 8, 8, 8};
    k.rows.store(2, later);
    k.rows.store(0, earlier);  // another thread's, which comes late
    EXPECT_EQ(half_to_float(*k.rows.find(1)), 8);
}

TEST(ExactCells, AreFittedToTheCellsThereAre) {
    const auto fitted = [](ExactCells cells, int64_t n_cells) {
        const ExactCells f = cells.fitted(n_cells);
        return std::vector<int>{f.n_sink, f.n_recent, f.n_reserve};
    };
    using V = std::vector<int>;
    EXPECT_EQ(fitted({65536, 65536}, 512), (V{512, 512, 0}));
    EXPECT_EQ(fitted({1, 15}, 512), (V{1, 15, 0}));
    EXPECT_EQ(fitted({1, 15}, 4096), (V{1, 15, 28}));
    EXPECT_EQ(fitted({1, 15}, 1 << 20), (V{1, 15, 64}));
    EXPECT_EQ(fitted({1, 15, 500}, 512), (V{1, 15, 497}));
    EXPECT_EQ(fitted({4, 0}, 4096), (V{4, 0, 0}));
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
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 0, 1), (std::map<int64_t, float>{{0, 4}, {5, 1}, {6, 2}, {7, 3}}));
    for (int64_t cell = 8; cell < 20; ++cell) EXPECT_EQ(k.rows.find(cell), nullptr) << cell;
    k.write({12}, {9});
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 0, 1), (std::map<int64_t, float>{{0, 4}, {6, 2}, {7, 3}, {12, 9}}));
    k.write({13, 14}, {10, 11});
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 0, 2), (std::map<int64_t, float>{{0, 4}, {7, 3}, {12, 9}, {13, 10}}));
}

TEST(ExactRows, AnAdoptedRowIsTheNewest) {
    Rows k({1, 2});
    k.write({5, 6, 7}, {1, 2, 3});
    const float row[kWidth] = {4, 4, 4, 4};
    for (int64_t cell : {9, 0}) ExactRows::convert(row, kWidth, k.rows.adopt(cell));
    EXPECT_EQ(exact_of_query(k.rows, k.rows, 0, 0, 1), (std::map<int64_t, float>{{0, 4}, {7, 3}, {9, 4}}));
    EXPECT_EQ(k.rows.adopt(-1), nullptr);
    EXPECT_EQ(Rows({1, 0}).rows.adopt(3), nullptr);
}

TEST(ExactRows, KeysAndValuesMayHaveBeenWrittenUnequallyOften) {
    Rows k({0, 3}), v({0, 3});
    k.write({4, 5}, {1, 2});
    k.rows.abandon();
    k.write({10}, {9});
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
    const float row[] = {1e30f, -1e30f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                         0.1f};
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
    for_exact_rows(*cache.exact_keys(), *cache.exact_values(), stream, stream, token, n_tokens, kAll,
                   [&](const ExactRow& row) { cells.insert(row.cell); });
    return cells;
}

TEST(ExactRowsOfAKvCache, FollowItsOperations) {
    using Cells = std::set<int64_t>;
    KvCache cache = std::move(KvCache::create(params_with({1, 3}), cpu_engine(Isa::kScalar)).value());
    const std::vector<float> k(40 * 32, 1.0f), v(40 * 64, 2.0f);
    ASSERT_TRUE(cache.append(0, 10, k.data(), v.data()).ok());
    ASSERT_TRUE(cache.append(1, 4, k.data(), v.data()).ok());
    EXPECT_EQ(exact_cells(cache, 0, 5, 10), (Cells{0, 3, 4, 5})) << "a stream's ubatch is not touched by another's";
    EXPECT_EQ(exact_cells(cache, 0, 9, 10), (Cells{0, 7, 8, 9}));
    EXPECT_EQ(exact_cells(cache, 1, 3, 4), (Cells{0, 1, 2, 3}));
    ASSERT_TRUE(cache.truncate(0, 9).ok());
    EXPECT_EQ(exact_cells(cache, 0, 9, 10), (Cells{0, 6, 7, 8}));
    ASSERT_TRUE(cache.append(0, 1, k.data(), v.data()).ok());
    EXPECT_EQ(exact_cells(cache, 0, 0, 1), (Cells{0, 7, 8, 9}));
    ASSERT_TRUE(cache.copy(1, 0, 0, 8, 1).ok());
    EXPECT_EQ(exact_cells(cache, 0, 0, 1), (Cells{0, 7, 8, 9})) << "a copied row is exact where it went";
    ASSERT_TRUE(cache.trim_front(0, 1).ok());
    EXPECT_EQ(exact_cells(cache, 0, 0, 1), (Cells{6, 7, 8})) << "all cells moved";
    cache.clear();
    EXPECT_EQ(exact_cells(cache, 1, 3, 4), Cells{});
}

TEST(ExactRowsOfAKvCache, AreCountedInItsBytes) {
    const size_t plain = KvCache::create(params_with({}), cpu_engine(Isa::kScalar))->bytes();
    EXPECT_EQ(KvCache::create(params_with({4, 10}), cpu_engine(Isa::kScalar))->bytes(),
              plain + 2u * 14 * (32 + 64) * 2);
    EXPECT_EQ(KvCache::create(params_with({}), cpu_engine(Isa::kScalar))->exact_keys(), nullptr);
}

TEST(ExactRowsOfAKvCache, BadNumbersAreRefused) {
    for (const ExactCells& cells :
         {ExactCells{-1, 0}, ExactCells{0, -1}, ExactCells{kMaxExactCells + 1, 0}, ExactCells{0, kMaxExactCells + 1}}) {
        const auto cache = KvCache::create(params_with(cells), cpu_engine(Isa::kScalar));
        ASSERT_FALSE(cache.ok());
        EXPECT_EQ(cache.status().error(), Error::kInvalidArgument);
        EXPECT_NE(cache.status().message().find("0 to 65536"), std::string::npos) << cache.status().message();
    }
}

}  // namespace
}  // namespace tq::test
