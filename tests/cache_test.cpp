// KvCache against a plain model: every cell is a dense row or nothing.
#include <algorithm>
#include <cstdint>
#include <utility>

#include <gtest/gtest.h>

#include "tests/support/bytes.h"
#include "tests/support/packed_rows.h"
#include "tests/support/random.h"
#include "tests/support/vectors.h"
#include "turboquant/cache/kv_cache.h"

namespace tq::test {
namespace {

const KvCacheParams kParams{Preset{3, 5}, 48, 80, 2, 70, 2};

KvCache make_cache() {
    return std::move(KvCache::create(kParams, cpu_engine(available_isas().back())).value());
}

int64_t k_width() {
    return int64_t{kParams.n_head_kv} * kParams.head_dim_k;
}
int64_t v_width() {
    return int64_t{kParams.n_head_kv} * kParams.head_dim_v;
}

struct DenseRows {
    std::vector<float> k, v;
};

DenseRows random_rows(int64_t n, Random& random) {
    return {random.normals(n * k_width()), random.normals(n * v_width())};
}

DenseRows read(const KvCache& cache, int64_t stream, int64_t cell, int64_t n) {
    DenseRows rows{std::vector<float>(n * k_width()), std::vector<float>(n * v_width())};
    EXPECT_TRUE(cache.read(stream, cell, n, rows.k.data(), rows.v.data()).ok());
    return rows;
}

// Each cell holds what the codec makes of the row last put there; a cell without a row decodes to zeros.
class Model {
  public:
    Model() : cells_(kParams.n_stream, std::vector<DenseRows>(kParams.n_cells, zeros())), lengths_(kParams.n_stream) {}

    void write(int64_t stream, int64_t cell, int64_t n, const DenseRows& rows) {
        for (int64_t i = 0; i < n; ++i) cells_[stream][cell + i] = {through(k_, rows.k, i), through(v_, rows.v, i)};
        if (n > 0) lengths_[stream] = std::max(lengths_[stream], cell + n);
    }
    void copy(int64_t from_stream, int64_t from, int64_t to_stream, int64_t to, int64_t n) {
        const auto source = cells_[from_stream].begin() + from;
        const std::vector<DenseRows> moved(source, source + n);
        std::copy(moved.begin(), moved.end(), cells_[to_stream].begin() + to);
        if (n > 0) lengths_[to_stream] = std::max(lengths_[to_stream], to + n);
    }
    void truncate(int64_t stream, int64_t length) {
        for (int64_t i = length; i < lengths_[stream]; ++i) cells_[stream][i] = zeros();
        lengths_[stream] = std::min(lengths_[stream], length);
    }
    void trim_front(int64_t stream, int64_t n) {
        const int64_t kept = std::max<int64_t>(0, lengths_[stream] - n);
        copy(stream, n, stream, 0, kept);
        truncate(stream, kept);
    }
    void clear() { *this = Model(); }
    int64_t length(int64_t stream) const { return lengths_[stream]; }

    void expect_same(const KvCache& cache) const {
        for (int64_t stream = 0; stream < kParams.n_stream; ++stream) {
            ASSERT_EQ(cache.length(stream), lengths_[stream]);
            for (int64_t cell = 0; cell < kParams.n_cells; ++cell) {
                const DenseRows rows = read(cache, stream, cell, 1);
                ASSERT_EQ(rows.k, cells_[stream][cell].k) << stream << ":" << cell;
                ASSERT_EQ(rows.v, cells_[stream][cell].v) << stream << ":" << cell;
            }
        }
    }

  private:
    static DenseRows zeros() { return {std::vector<float>(k_width()), std::vector<float>(v_width())}; }
    static std::vector<float> through(PackedRows& codec, const std::vector<float>& rows, int64_t i) {
        return codec.encode_decode({rows.begin() + i * codec.width(), rows.begin() + (i + 1) * codec.width()});
    }

    PackedRows k_{{Side::kKey, kParams.preset.key_bits, kParams.head_dim_k, kParams.n_head_kv}};
    PackedRows v_{{Side::kValue, kParams.preset.value_bits, kParams.head_dim_v, kParams.n_head_kv}};
    std::vector<std::vector<DenseRows>> cells_;
    std::vector<int64_t> lengths_;
};

// One random operation on both.
class RandomOperations {
  public:
    explicit RandomOperations(uint64_t seed) : random_(seed) {}

    void step() {
        const int64_t stream = random_.below(kParams.n_stream), cell = random_.below(kParams.n_cells);
        const int64_t n = random_.below(std::min<int64_t>(9, kParams.n_cells - cell + 1));
        switch (random_.below(12)) {
            case 0:
            case 1:
            case 2:
            case 3:
                return append(stream, n);
            case 4:
            case 5:
            case 6:
                return write(stream, cell, n);
            case 7:
            case 8:
                return copy(stream, cell);
            case 9:
                return truncate(stream, cell);
            case 10:
                return trim_front(stream, n);
            default:
                if (random_.below(4) == 0) clear();
        }
    }
    void check() const { model_.expect_same(cache_); }

  private:
    void append(int64_t stream, int64_t n) {
        const int64_t at = model_.length(stream);
        const DenseRows rows = random_rows(n, random_);
        const Status status = cache_.append(stream, n, rows.k.data(), rows.v.data());
        EXPECT_EQ(status.ok(), at + n <= kParams.n_cells);
        if (status.ok()) model_.write(stream, at, n, rows);
    }
    void write(int64_t stream, int64_t cell, int64_t n) {
        const DenseRows rows = random_rows(n, random_);
        ASSERT_TRUE(cache_.write(stream, cell, n, rows.k.data(), rows.v.data()).ok());
        model_.write(stream, cell, n, rows);
    }
    void copy(int64_t from_stream, int64_t from) {
        const int64_t to_stream = random_.below(kParams.n_stream), to = random_.below(kParams.n_cells);
        const int64_t n = random_.below(kParams.n_cells - std::max(from, to) + 1);
        ASSERT_TRUE(cache_.copy(from_stream, from, to_stream, to, n).ok());
        model_.copy(from_stream, from, to_stream, to, n);
    }
    void truncate(int64_t stream, int64_t length) {
        ASSERT_TRUE(cache_.truncate(stream, length).ok());
        model_.truncate(stream, length);
    }
    void trim_front(int64_t stream, int64_t n) {
        ASSERT_TRUE(cache_.trim_front(stream, n).ok());
        model_.trim_front(stream, n);
    }
    void clear() {
        cache_.clear();
        model_.clear();
    }

    Random random_;
    KvCache cache_ = make_cache();
    Model model_;
};

class CacheOperations : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Seeds, CacheOperations, testing::Range(0, 6), testing::PrintToStringParamName());

TEST_P(CacheOperations, AgreeWithTheModel) {
    RandomOperations operations(static_cast<uint64_t>(GetParam()));
    for (int i = 0; i < 60; ++i) {
        operations.step();
        operations.check();
        if (HasFatalFailure()) FAIL() << "after operation " << i;
    }
}

TEST(KvCache, CopyMovesOverlappingRangesInBothDirections) {
    for (auto [from, to] : {std::pair<int64_t, int64_t>{0, 5}, {5, 0}, {10, 10}}) {
        KvCache cache = make_cache();
        Random random(1);
        const DenseRows rows = random_rows(50, random);
        ASSERT_TRUE(cache.append(0, 50, rows.k.data(), rows.v.data()).ok());
        const DenseRows before = read(cache, 0, from, 40);
        ASSERT_TRUE(cache.copy(0, from, 0, to, 40).ok());
        EXPECT_EQ(read(cache, 0, to, 40).k, before.k) << from;
        EXPECT_EQ(read(cache, 0, to, 40).v, before.v) << from;
    }
}

// The first rows of a stream have no center where they come from, but one where they go to.
TEST(KvCache, CenteredKeysCanBeCopiedToAnotherOffset) {
    KvCacheParams params = kParams;
    params.preset = Preset::parse("k4cv4").value();
    KvCache cache = std::move(KvCache::create(params, cpu_engine(available_isas().back())).value());
    Random random(5);
    const DenseRows rows = random_rows(20, random);
    ASSERT_TRUE(cache.append(0, 20, rows.k.data(), rows.v.data()).ok());
    ASSERT_TRUE(cache.copy(0, 0, 1, 2, 20).ok());
    const std::vector<float> from = read(cache, 0, 0, 20).k, to = read(cache, 1, 2, 20).k;
    for (int64_t cell = 0; cell < 20; ++cell) {
        const std::span<const float> a = std::span(from).subspan(cell * k_width(), k_width());
        const std::span<const float> b = std::span(to).subspan(cell * k_width(), k_width());
        EXPECT_LE(squared_distance(a, b), 0.03 * dot(a, a)) << cell;
    }
}

// A fork attends to the same rows exactly as the stream that it came from; rows that move to the front keep theirs,
// too.
TEST(KvCache, CopiesTakeTheirExactRowsAlong) {
    KvCacheParams params = kParams;
    params.exact = {2, 8, 4};
    KvCache cache = std::move(KvCache::create(params, cpu_engine(available_isas().back())).value());
    Random random(6);
    const DenseRows rows = random_rows(20, random);
    ASSERT_TRUE(cache.append(0, 20, rows.k.data(), rows.v.data()).ok());
    const auto kept = [&](int64_t stream, int64_t cell) -> std::vector<uint16_t> {
        const uint16_t* row = cache.exact_keys()->find(stream * params.n_cells + cell);
        return row ? std::vector<uint16_t>(row, row + k_width()) : std::vector<uint16_t>();
    };
    ASSERT_TRUE(cache.copy(0, 0, 1, 0, 20).ok());
    int n_kept = 0;
    for (int64_t cell = 0; cell < 20; ++cell) {
        EXPECT_EQ(kept(1, cell), kept(0, cell)) << cell;
        n_kept += !kept(0, cell).empty();
    }
    EXPECT_EQ(n_kept, 2 + 8 + 4);
    const std::vector<uint16_t> last = kept(0, 19);
    ASSERT_TRUE(cache.trim_front(0, 5).ok());
    EXPECT_EQ(kept(0, 14), last);
    EXPECT_EQ(kept(0, 19), std::vector<uint16_t>());
}

TEST(KvCache, LengthOfNoStreamIsZero) {
    const KvCache cache = make_cache();
    for (int64_t stream : {int64_t{-1}, int64_t{2}, INT64_MAX, INT64_MIN}) EXPECT_EQ(cache.length(stream), 0) << stream;
}

TEST(KvCache, BytesAreThoseOfTheRecords) {
    // 2 streams x 2 blocks of 64 cells and the empty record; K: 96 values of 3 bits and 3 scales a cell; V: 160 of 5
    // bits and 3 scales.
    EXPECT_EQ(make_cache().bytes(), (2u * 2 + 1) * 64 * (96 * 3 / 8 + 3 + 160 * 5 / 8 + 3));
}

TEST(KvCache, ReadsOneSideOnly) {
    KvCache cache = make_cache();
    Random random(2);
    const DenseRows rows = random_rows(1, random);
    ASSERT_TRUE(cache.append(1, 1, rows.k.data(), rows.v.data()).ok());
    std::vector<float> k(k_width()), v(v_width());
    EXPECT_TRUE(cache.read(1, 0, 1, k.data(), nullptr).ok());
    EXPECT_TRUE(cache.read(1, 0, 1, nullptr, v.data()).ok());
    EXPECT_EQ(k, read(cache, 1, 0, 1).k);
    EXPECT_EQ(v, read(cache, 1, 0, 1).v);
}

TEST(KvCache, TruncatedCellsKeepNoData) {
    KvCache cache = make_cache();
    Random random(3);
    const DenseRows rows = random_rows(70, random);
    ASSERT_TRUE(cache.append(0, 70, rows.k.data(), rows.v.data()).ok());
    ASSERT_TRUE(cache.truncate(0, 0).ok());
    EXPECT_EQ(cache.n_free_records(), cache.n_records());
    ASSERT_TRUE(cache.append(0, 1, rows.k.data(), rows.v.data()).ok());  // takes a record that was used
    for (int64_t cell : {1, 63, 69}) {
        EXPECT_EQ(read(cache, 0, cell, 1).k, std::vector<float>(k_width()));
        EXPECT_EQ(read(cache, 0, cell, 1).v, std::vector<float>(v_width()));
    }
}

// Every refused call gives kOutOfRange and changes nothing.
TEST(KvCache, OutOfRangeCallsChangeNothing) {
    KvCache cache = make_cache();
    Random random(4);
    const DenseRows rows = random_rows(71, random);
    const float *k = rows.k.data(), *v = rows.v.data();
    std::vector<float> sink(71 * v_width());
    ASSERT_TRUE(cache.append(0, 60, k, v).ok());
    const DenseRows before = read(cache, 0, 0, 70);
    const Status refused[] = {cache.write(2, 0, 1, k, v),
                              cache.write(-1, 0, 1, k, v),
                              cache.write(0, 70, 1, k, v),
                              cache.write(0, -1, 1, k, v),
                              cache.write(0, 0, 71, k, v),
                              cache.write(0, 0, -1, k, v),
                              cache.append(0, 11, k, v),
                              cache.append(5, 1, k, v),
                              cache.copy(0, 0, 0, 31, 40),
                              cache.copy(0, 31, 0, 0, 40),
                              cache.copy(0, 0, 2, 0, 1),
                              cache.copy(3, 0, 0, 0, 1),
                              cache.truncate(0, 71),
                              cache.truncate(2, 0),
                              cache.trim_front(0, 71),
                              cache.trim_front(-1, 0),
                              cache.truncate(0, -1),
                              cache.read(0, 70, 1, nullptr, sink.data()),
                              cache.read(2, 0, 1, nullptr, sink.data()),
                              cache.write(0, INT64_MAX, 1, k, v)};
    for (const Status& status : refused) {
        EXPECT_EQ(status.error(), Error::kOutOfRange);
        EXPECT_FALSE(status.message().empty());
    }
    EXPECT_EQ(cache.length(0), 60);
    EXPECT_EQ(cache.length(1), 0);
    EXPECT_EQ(read(cache, 0, 0, 70).k, before.k);
    EXPECT_EQ(read(cache, 0, 0, 70).v, before.v);
}

TEST(KvCache, RefusesBadParametersWithTheirError) {
    const auto error_of = [](auto change) {
        KvCacheParams params = kParams;
        change(params);
        return KvCache::create(params, cpu_engine(Isa::kScalar)).status().error();
    };
    EXPECT_EQ(error_of([](KvCacheParams& p) { p.preset.key_bits = 1; }), Error::kInvalidArgument);
    EXPECT_EQ(error_of([](KvCacheParams& p) { p.preset.value_bits = 9; }), Error::kInvalidArgument);
    EXPECT_EQ(error_of([](KvCacheParams& p) { p.n_head_kv = 0; }), Error::kInvalidArgument);
    EXPECT_EQ(error_of([](KvCacheParams& p) { p.n_cells = 0; }), Error::kInvalidArgument);
    EXPECT_EQ(error_of([](KvCacheParams& p) { p.n_stream = -1; }), Error::kInvalidArgument);
    EXPECT_EQ(error_of([](KvCacheParams& p) { p.head_dim_k = 528; }), Error::kUnsupported);
    EXPECT_EQ(error_of([](KvCacheParams& p) { p.head_dim_v = 1024; }), Error::kUnsupported);
}

}  // namespace
}  // namespace tq::test
