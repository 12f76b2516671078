// What the CUDA engine's plans work out on the host: segments of cells, sizes, reasons for what is not supported.
#include <gtest/gtest.h>

#include "turboquant/cuda/attention_geometry.h"

namespace tq::test {
namespace {

TEST(CudaSegments, CoverAllBlocksInOrder) {
    for (int even_blocks : {0, 16, 48}) {
        const cuda::Segments segments{even_blocks};
        EXPECT_EQ(segments.first_block(0), 0);
        for (int segment = 0; segment < 400; ++segment) {
            const int64_t first = segments.first_block(segment), end = segments.first_block(segment + 1);
            ASSERT_LT(first, end) << segment;
            for (int64_t block : {first, (first + end) / 2, end - 1})
                ASSERT_EQ(segments.of_block(block), segment) << block;
        }
    }
}

TEST(CudaSegments, AreFewForLongContextsAndSmallForShortOnes) {
    const cuda::Segments segments{0};
    EXPECT_EQ(segments.count(0), 0);
    EXPECT_EQ(segments.count(1), 1);
    EXPECT_EQ(segments.count(1024), 1);
    EXPECT_EQ(segments.count(1025), 2);
    EXPECT_EQ(segments.count(1 << 16), 64);
    EXPECT_EQ(segments.count(1 << 20), 192);
    EXPECT_LT(segments.count(int64_t{1} << 30), 600);
}

AttentionShape shape() {
    AttentionShape s;
    s.head_dim_k = s.head_dim_v = 128;
    s.n_head = 32;
    s.n_head_kv = 8;
    s.n_tokens = 3;
    s.n_kv = 5000;
    s.n_stream = 2;
    return s;
}

cuda::AttentionGeometry geometry_of(const AttentionShape& s, bool batch_invariant) {
    return cuda::attention_geometry(s, 4, 4, {batch_invariant}, 132).value();
}

TEST(CudaGeometry, HasRoomForTicketsAndPartialResults) {
    const cuda::AttentionGeometry g = geometry_of(shape(), true);
    EXPECT_EQ(g.group_size, 4);
    EXPECT_EQ(g.n_tiles, 3);
    EXPECT_EQ(g.n_segments, 5);
    EXPECT_EQ(g.partial_offset, 256u);  // 48 tickets
    EXPECT_EQ(g.workspace_bytes, 256u + size_t{48} * 5 * (4 * 128 + 8) * 4);
    AttentionShape one = shape();
    one.n_kv = 1024;
    EXPECT_EQ(geometry_of(one, true).workspace_bytes, 256u);
}

TEST(CudaGeometry, TilesAreWideWhereThereAreMoreThanFourRows) {
    AttentionShape s = shape();
    EXPECT_EQ(geometry_of(s, false).tile_rows, 8);
    EXPECT_EQ(geometry_of(s, false).n_tiles, 2);
    EXPECT_EQ(geometry_of(s, true).tile_rows, 4);
    s.n_tokens = 1;
    EXPECT_EQ(geometry_of(s, false).tile_rows, 4);
    s.n_head = 64;
    EXPECT_EQ(geometry_of(s, false).tile_rows, 8);
    EXPECT_EQ(geometry_of(s, true).tile_rows, 8);
}

TEST(CudaGeometry, ThereAreAsManyThreadBlocksAsRunAtTheSameTime) {
    AttentionShape s = shape();
    s.n_tokens = 1;
    const auto run = [&](int64_t n_stream, int64_t n_kv, bool batch_invariant) {
        s.n_stream = n_stream;
        s.n_kv = n_kv;
        const cuda::AttentionGeometry g = geometry_of(s, batch_invariant);
        EXPECT_EQ(g.segments.even_blocks, batch_invariant ? 0 : g.run_blocks);
        return g.run_blocks;
    };
    for (bool batch_invariant : {false, true}) {
        s.n_head = 32, s.n_head_kv = 8;
        EXPECT_EQ(run(1, 100, batch_invariant), 16);
        EXPECT_EQ(run(1, 32768, batch_invariant), 16);
        EXPECT_EQ(run(8, 8192, batch_invariant), 32);
        EXPECT_EQ(run(8, 32768, batch_invariant), 128);
        EXPECT_EQ(run(32, 32768, batch_invariant), 512);
        EXPECT_EQ(run(1000, 32768, batch_invariant), 32);
        EXPECT_EQ(run(1, 1 << 20, batch_invariant), 512);
        s.n_head = s.n_head_kv = 1;
        EXPECT_EQ(run(1, 1 << 20, batch_invariant), batch_invariant ? 256 : 64);  // the longest segment
    }
}

TEST(CudaGeometry, SaysWhatItDoesNotTake) {
    const auto reason = [](auto change) {
        AttentionShape s = shape();
        change(s);
        const auto geometry = cuda::attention_geometry(s, 4, 4, {}, 132);
        return geometry.ok() ? std::string() : geometry.status().message();
    };
    EXPECT_EQ(reason([](AttentionShape&) {}), "");
    EXPECT_NE(reason([](AttentionShape& s) { s.head_dim_v = 64; }).find("equal"), std::string::npos);
    EXPECT_NE(reason([](AttentionShape& s) { s.max_bias = 8; }).find("ALiBi"), std::string::npos);
    EXPECT_NE(reason([](AttentionShape& s) { s.n_exact = 4; }).find("exact rows"), std::string::npos);
    EXPECT_NE(reason([](AttentionShape& s) { s.n_head = 30; }).find("multiple"), std::string::npos);
    EXPECT_NE(reason([](AttentionShape& s) { s.window = 5; }).find("window"), std::string::npos);
    EXPECT_NE(reason([](AttentionShape& s) { s.n_tokens = 0; }).find("positive"), std::string::npos);
    EXPECT_NE(reason([](AttentionShape& s) { s.n_kv = int64_t{1} << 31; }).find("too large"), std::string::npos);
}

}  // namespace
}  // namespace tq::test
