// Caches of more than 2^32 bytes: offsets must not be cut to 32 bits. The memory is reserved, and only touched pages
// exist.
#include <sys/mman.h>

#include <gtest/gtest.h>

#include "tests/support/packed_rows.h"
#include "turboquant/attention/plan.h"

namespace tq::test {
namespace {

class SparseMemory {
  public:
    explicit SparseMemory(size_t bytes) : bytes_(bytes) {
        void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        data_ = p == MAP_FAILED ? nullptr : static_cast<uint8_t*>(p);
    }
    ~SparseMemory() {
        if (data_) munmap(data_, bytes_);
    }
    SparseMemory(const SparseMemory&) = delete;
    SparseMemory& operator=(const SparseMemory&) = delete;
    uint8_t* data() const { return data_; }

  private:
    size_t bytes_;
    uint8_t* data_;
};

constexpr int kHeadDim = 64, kHeads = 64;
constexpr int64_t kWidth = kHeadDim * kHeads, kManyCells = int64_t{1} << 20;

RowCodec codec_of(Side side, Coding coding, int64_t n_cells) {
    const PackedShape shape{side, coding, kHeadDim, kHeads, n_cells, 2};
    return RowCodec::create(make_layout(shape), kHeadDim, available_isas().back()).value();
}

std::vector<float> decoded(const RowCodec& codec, const uint8_t* data, int64_t stream, int64_t cell) {
    std::vector<float> row(kWidth);
    codec.decode(data, stream, cell, row.data());
    return row;
}

TEST(LargeCaches, RowsAreStoredReadAndCopiedAtTheEnd) {
    for (Coding coding : {Coding(8), centered(4), trellis(5)}) {
        const RowCodec large = codec_of(Side::kKey, coding, kManyCells), small = codec_of(Side::kKey, coding, 64);
        ASSERT_GT(large.layout().bytes(), size_t{1} << 32);
        const SparseMemory memory(large.layout().bytes());
        if (!memory.data()) GTEST_SKIP() << "no address space for " << large.layout().bytes() << " bytes";
        Random random(1);
        const std::vector<float> row = random.normals(kWidth);
        Bytes expected(small.layout().bytes());
        // Its block before is empty, as the first cells of block 0 are.
        small.encode(row.data(), expected.data(), 1, coding.centered ? 2 : 0);
        const std::vector<float> decoded_row = decoded(small, expected.data(), 1, coding.centered ? 2 : 0);
        const int64_t last = kManyCells - 64;
        large.encode(row.data(), memory.data(), 1, last);
        EXPECT_EQ(decoded(large, memory.data(), 1, last), decoded_row) << coding;
        large.copy(memory.data(), 1, last, 1, 128);
        EXPECT_EQ(decoded(large, memory.data(), 1, 128), decoded_row) << coding;
        large.clear(memory.data(), 1, last);
        EXPECT_EQ(decoded(large, memory.data(), 1, 128), decoded_row) << coding;
        std::vector<float> rows(5 * kWidth);
        large.decode_block(memory.data(), 1, 2, 0, 5, rows.data());
        EXPECT_EQ(std::vector<float>(rows.begin(), rows.begin() + kWidth), decoded_row) << coding;
    }
}

// 70 cells of the second stream, which begins behind 2^32 bytes.
TEST(LargeCaches, AreAttendedTo) {
    constexpr int64_t kCells = 70;
    const RowCodec large_k = codec_of(Side::kKey, centered(8), kManyCells),
                   large_v = codec_of(Side::kValue, 8, kManyCells);
    const RowCodec small_k = codec_of(Side::kKey, centered(8), kCells), small_v = codec_of(Side::kValue, 8, kCells);
    const SparseMemory k(large_k.layout().bytes()), v(large_v.layout().bytes());
    if (!k.data() || !v.data()) GTEST_SKIP() << "no address space for " << large_k.layout().bytes() << " bytes";
    Bytes small_k_bytes(small_k.layout().bytes()), small_v_bytes(small_v.layout().bytes());
    Random random(2);
    for (int64_t cell = 0; cell < kCells; ++cell) {
        const std::vector<float> key = random.normals(kWidth), value = random.normals(kWidth);
        large_k.encode(key.data(), k.data(), 1, cell);
        large_v.encode(value.data(), v.data(), 1, cell);
        small_k.encode(key.data(), small_k_bytes.data(), 1, cell);
        small_v.encode(value.data(), small_v_bytes.data(), 1, cell);
    }
    const std::vector<float> q = random.normals(kWidth);
    const auto attend = [&](const PackedTensor& keys, const PackedTensor& values) {
        AttentionShape shape{kHeadDim, kHeadDim, kHeads, kHeads, 1, kCells};
        std::vector<float> out(kWidth);
        AttentionInputs in;
        in.q = q.data();
        in.k = keys;
        in.v = values;
        in.k_first_stream = in.v_first_stream = 1;
        in.out = out.data();
        in.q_head_stride = in.out_head_stride = kHeadDim * sizeof(float);
        const AttentionPlan plan =
            AttentionPlan::create(shape, *keys.codec, *values.codec, available_isas().back()).value();
        EXPECT_TRUE(plan.bind(in).ok());
        std::vector<std::max_align_t> workspace(plan.workspace_bytes() / sizeof(std::max_align_t) + 8);
        void* aligned = workspace.data();
        size_t space = workspace.size() * sizeof(std::max_align_t);
        plan.run_all(in, std::align(64, plan.workspace_bytes(), aligned, space));
        return out;
    };
    EXPECT_TRUE(same_bits(attend({&large_k, k.data()}, {&large_v, v.data()}),
                          attend({&small_k, small_k_bytes.data()}, {&small_v, small_v_bytes.data()})));
}

}  // namespace
}  // namespace tq::test
