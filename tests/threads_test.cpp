// These tests check what threads may do at once with rows and caches; they run under ThreadSanitizer too (preset tsan).
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/packed_rows.h"
#include "turboquant/cache/kv_cache.h"

namespace tq::test {
namespace {

constexpr int kThreads = 4;
constexpr int64_t kCells = 150;

template <class Fn>
void on_threads(Fn fn) {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) threads.emplace_back([=] { fn(t); });
    for (std::thread& thread : threads) thread.join();
}

class RowsOnThreads : public testing::TestWithParam<std::tuple<Side, Codes>> {
  protected:
    const Side side_ = std::get<0>(GetParam());
    const Codes coding_ = std::get<1>(GetParam());
    const PackedShape shape_{side_, coding_, 48, 16, kCells};
    PackedRows expected_{shape_}, packed_{shape_};
    std::vector<std::vector<float>> rows_;

    void SetUp() override {
        Random random(1);
        for (int64_t cell = 0; cell < kCells; ++cell) {
            rows_.push_back(random.normals(packed_.width()));
            expected_.encode(rows_.back(), cell);
        }
    }
};
INSTANTIATE_TEST_SUITE_P(Codings, RowsOnThreads,
                         testing::Values(std::tuple{Side::kKey, Codes(4)}, std::tuple{Side::kKey, Codes(3)},
                                         std::tuple{Side::kKey, centered(4)},
                                         std::tuple{Side::kKey, centered(trellis(4))},
                                         std::tuple{Side::kValue, Codes(5)}, std::tuple{Side::kValue, trellis(3)}));

TEST_P(RowsOnThreads, SlicesAreEncodedAtOnce) {
    ASSERT_GE(packed_.codec.n_slices(), kThreads);
    on_threads([this](int thread) {
        for (int64_t cell = 0; cell < kCells; ++cell) {
            for (int slice = 0; slice < packed_.codec.n_slices(); ++slice) {
                if (slice % kThreads != thread) continue;
                packed_.codec.encode_slice(rows_[cell].data(), packed_.blocks(0), cell, slice);
            }
        }
    });
    EXPECT_EQ(packed_.bytes, expected_.bytes);
}

TEST_P(RowsOnThreads, BlocksAreEncodedAtOnceUnlessCentered) {
    if (coding_.centered) return;
    on_threads([this](int thread) {
        for (int64_t cell = 0; cell < kCells; ++cell) {
            if (cell / kBlockCells % kThreads == thread) packed_.encode(rows_[cell], cell);
        }
    });
    EXPECT_EQ(packed_.bytes, expected_.bytes);
}

// Rows given all at once for each block: centers do not depend on other blocks then.
TEST_P(RowsOnThreads, BlocksOfRowsAreEncodedAndDecodedAtOnce) {
    std::vector<float> dense, read(kCells * packed_.width());
    for (const auto& row : rows_) dense.insert(dense.end(), row.begin(), row.end());
    const auto block_of = [&](int thread) { return std::min<int64_t>(kBlockCells, kCells - thread * kBlockCells); };
    for (PackedRows* packed : {&expected_, &packed_}) {
        const auto encode = [&, packed](int thread) {
            if (thread * kBlockCells >= kCells) return;
            const uint64_t cells = ~uint64_t{0} >> (kBlockCells - block_of(thread));
            packed->codec.encode_block(dense.data() + thread * kBlockCells * packed->width(), cells, packed->blocks(),
                                       thread);
        };
        if (packed == &packed_)
            on_threads(encode);
        else
            for (int thread = 0; thread < kThreads; ++thread) encode(thread);
    }
    EXPECT_EQ(packed_.bytes, expected_.bytes);
    on_threads([&](int thread) {
        if (thread * kBlockCells >= kCells) return;
        packed_.codec.decode_block(packed_.blocks(0), thread, 0, static_cast<int>(block_of(thread)),
                                   read.data() + thread * kBlockCells * packed_.width());
    });
    for (int64_t cell = 0; cell < kCells; ++cell) {
        const auto row = read.begin() + cell * packed_.width();
        ASSERT_EQ(std::vector<float>(row, row + packed_.width()), packed_.decode(cell)) << cell;
    }
}

TEST(CacheOnThreads, CachesOfTheirOwnAndReadersOfOne) {
    const KvCacheParams params{Preset::parse("k4cv4").value(), 64, 64, 2, kCells};
    Random random(2);
    const std::vector<float> k = random.normals(kCells * 128), v = random.normals(kCells * 128);
    KvCache shared = std::move(KvCache::create(params, cpu_engine(available_isas().back())).value());
    ASSERT_TRUE(shared.append(0, kCells, k.data(), v.data()).ok());
    std::vector<std::vector<float>> read_k(kThreads, std::vector<float>(k.size())), own_k = read_k;
    on_threads([&](int thread) {
        KvCache own = std::move(KvCache::create(params, cpu_engine(available_isas().back())).value());
        EXPECT_TRUE(own.append(0, kCells, k.data(), v.data()).ok());
        EXPECT_TRUE(own.read(0, 0, kCells, own_k[thread].data(), nullptr).ok());
        EXPECT_TRUE(shared.read(0, 0, kCells, read_k[thread].data(), nullptr).ok());
    });
    for (int thread = 0; thread < kThreads; ++thread) {
        EXPECT_EQ(read_k[thread], read_k[0]);
        EXPECT_EQ(own_k[thread], read_k[0]);
    }
}

}  // namespace
}  // namespace tq::test
