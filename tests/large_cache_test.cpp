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

RowCodec codec_of(Side side, Codes codes) {
    return RowCodec::create(make_format(side, codes, kWidth), kHeadDim, available_isas().back()).value();
}

size_t bytes_of(const RowCodec& codec, int64_t n_cells) {
    return 2 * static_cast<size_t>(blocks_of_cells(n_cells)) * codec.format().block_bytes();
}

PackedTensor tensor_of(const RowCodec& codec, const uint8_t* records, int64_t n_cells) {
    return {&codec, records, 2 * blocks_of_cells(n_cells), n_cells, 2};
}

// Of stream 1.
Blocks blocks_of(const RowCodec& codec, uint8_t* records, int64_t n_cells) {
    const ConstBlocks blocks = tensor_of(codec, records, n_cells).blocks(1);
    return {records + (blocks.first - records), blocks.stride};
}

std::vector<float> decoded(const RowCodec& codec, const Blocks& blocks, int64_t cell) {
    std::vector<float> row(kWidth);
    codec.decode(blocks, cell, row.data());
    return row;
}

TEST(LargeCaches, RowsAreStoredReadAndCopiedAtTheEnd) {
    for (Codes codes : {Codes(8), centered(4), trellis(5)}) {
        const RowCodec codec = codec_of(Side::kKey, codes);
        const size_t bytes = bytes_of(codec, kManyCells);
        ASSERT_GT(bytes, size_t{1} << 32);
        const SparseMemory memory(bytes);
        if (!memory.data()) GTEST_SKIP() << "no address space for " << bytes << " bytes";
        Random random(1);
        const std::vector<float> row = random.normals(kWidth);
        Bytes small(codec.format().block_bytes());
        // The block before is empty, as the first cells of block 0 are.
        const Blocks few{small.data(), small.size()}, many = blocks_of(codec, memory.data(), kManyCells);
        codec.encode(row.data(), few, codes.centered ? 2 : 0);
        const std::vector<float> expected = decoded(codec, few, codes.centered ? 2 : 0);
        const int64_t last = kManyCells - 64;
        codec.encode(row.data(), many, last);
        EXPECT_EQ(decoded(codec, many, last), expected) << codes;
        codec.copy(many, last, many, 128);
        EXPECT_EQ(decoded(codec, many, 128), expected) << codes;
        codec.clear(many, last);
        EXPECT_EQ(decoded(codec, many, 128), expected) << codes;
        std::vector<float> rows(5 * kWidth);
        codec.decode_block(many, 2, 0, 5, rows.data());
        EXPECT_EQ(std::vector<float>(rows.begin(), rows.begin() + kWidth), expected) << codes;
    }
}

// 70 cells of the second stream, which begins behind 2^32 bytes.
TEST(LargeCaches, AreAttendedTo) {
    constexpr int64_t kCells = 70;
    const RowCodec key_codec = codec_of(Side::kKey, centered(8)), value_codec = codec_of(Side::kValue, 8);
    const SparseMemory k(bytes_of(key_codec, kManyCells)), v(bytes_of(value_codec, kManyCells));
    if (!k.data() || !v.data()) GTEST_SKIP() << "no address space for " << bytes_of(key_codec, kManyCells) << " bytes";
    Bytes few_k(bytes_of(key_codec, kCells)), few_v(bytes_of(value_codec, kCells));
    Random random(2);
    for (int64_t cell = 0; cell < kCells; ++cell) {
        const std::vector<float> key = random.normals(kWidth), value = random.normals(kWidth);
        key_codec.encode(key.data(), blocks_of(key_codec, k.data(), kManyCells), cell);
        value_codec.encode(value.data(), blocks_of(value_codec, v.data(), kManyCells), cell);
        key_codec.encode(key.data(), blocks_of(key_codec, few_k.data(), kCells), cell);
        value_codec.encode(value.data(), blocks_of(value_codec, few_v.data(), kCells), cell);
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
            AttentionPlan::create(shape, *keys.codec, *values.codec, cpu_engine(available_isas().back())).value();
        EXPECT_TRUE(plan.bind(in).ok());
        std::vector<std::max_align_t> workspace(plan.workspace_bytes() / sizeof(std::max_align_t) + 8);
        void* aligned = workspace.data();
        size_t space = workspace.size() * sizeof(std::max_align_t);
        plan.run_all(in, std::align(64, plan.workspace_bytes(), aligned, space));
        return out;
    };
    EXPECT_TRUE(
        same_bits(attend(tensor_of(key_codec, k.data(), kManyCells), tensor_of(value_codec, v.data(), kManyCells)),
                  attend(tensor_of(key_codec, few_k.data(), kCells), tensor_of(value_codec, few_v.data(), kCells))));
}

}  // namespace
}  // namespace tq::test
