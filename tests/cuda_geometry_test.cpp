// What the CUDA engine's plans work out on the host: segments of cells, sizes, reasons for what is not supported.
#include <gtest/gtest.h>

#include "turboquant/cuda/attention_geometry.h"
#include "turboquant/cuda/segments.h"

namespace tq::test {
namespace {

TEST(CudaSegments, CoverAllBlocksInOrder) {
    EXPECT_EQ(cuda::first_block_of_segment(0), 0);
    for (int segment = 0; segment < 400; ++segment) {
        const int64_t first = cuda::first_block_of_segment(segment), end = cuda::first_block_of_segment(segment + 1);
        ASSERT_LT(first, end) << segment;
        for (int64_t block : {first, (first + end) / 2, end - 1})
            ASSERT_EQ(cuda::segment_of_block(block), segment) << block;
    }
}

TEST(CudaSegments, AreFewForLongContextsAndSmallForShortOnes) {
    EXPECT_EQ(cuda::n_segments(0), 0);
    EXPECT_EQ(cuda::n_segments(1), 1);
    EXPECT_EQ(cuda::n_segments(1024), 1);
    EXPECT_EQ(cuda::n_segments(1025), 2);
    EXPECT_EQ(cuda::n_segments(1 << 16), 64);
    EXPECT_EQ(cuda::n_segments(1 << 20), 192);
    EXPECT_LT(cuda::n_segments(int64_t{1} << 30), 600);
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

TEST(CudaGeometry, HasRoomForTicketsAndPartialResults) {
    const cuda::AttentionGeometry g = cuda::attention_geometry(shape(), 4, 4).value();
    EXPECT_EQ(g.group_size, 4);
    EXPECT_EQ(g.n_tiles, 3);
    EXPECT_EQ(g.n_segments, 5);
    EXPECT_EQ(g.partial_offset, 256u);  // 48 tickets
    EXPECT_EQ(g.workspace_bytes, 256u + size_t{48} * 5 * (4 * 128 + 8) * 4);
    AttentionShape one = shape();
    one.n_kv = 1024;
    EXPECT_EQ(cuda::attention_geometry(one, 4, 4).value().workspace_bytes, 256u);
}

TEST(CudaGeometry, ThreadBlocksHaveMoreSegmentsWhereThereIsMoreWork) {
    AttentionShape s = shape();
    s.n_tokens = 1;
    s.n_kv = 32768;
    const auto run = [&](int64_t n_stream) {
        s.n_stream = n_stream;
        return cuda::run_segments(cuda::attention_geometry(s, 4, 4).value(), 396);
    };
    EXPECT_EQ(run(1), 1);
    EXPECT_EQ(run(8), 2);
    EXPECT_EQ(run(32), 10);
    EXPECT_EQ(run(1000), 32);
}

TEST(CudaGeometry, SaysWhatItDoesNotTake) {
    const auto reason = [](auto change) {
        AttentionShape s = shape();
        change(s);
        const auto geometry = cuda::attention_geometry(s, 4, 4);
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
