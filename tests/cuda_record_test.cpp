// Records in the order of GPUs, on the host: where bits lie, and the way from and to the CPU's records.
#include <algorithm>

#include <gtest/gtest.h>

#include "tests/support/packed_rows.h"
#include "turboquant/cpu/codec/plain_records.h"
#include "turboquant/cuda/plain_records.h"

namespace tq::test {
namespace {

TEST(CudaRecord, EveryCodeOfAUnitHasOnePlace) {
    for (Side side : {Side::kKey, Side::kValue}) {
        std::vector<int> uses(1024);
        for (int cell = 0; cell < kBlockCells; ++cell)
            for (int dim = 0; dim < kStepDims; ++dim) {
                const cuda::CodePlace at = cuda::code_place(side, cell, dim);
                ++uses[at.lane * 32 + at.slot * 8 + at.index];
                const cuda::CodeOf back = cuda::code_of(side, at.lane, at.slot, at.index);
                EXPECT_EQ(back.cell, cell);
                EXPECT_EQ(back.dim, dim);
            }
        EXPECT_EQ(std::count(uses.begin(), uses.end(), 1), 1024);
    }
}

TEST(CudaRecord, EveryScaleOfAGroupHasOnePlace) {
    for (Side side : {Side::kKey, Side::kValue}) {
        std::vector<int> uses(kBlockCells);
        for (int cell = 0; cell < kBlockCells; ++cell) ++uses[cuda::scale_place(side, cell)];
        EXPECT_EQ(std::count(uses.begin(), uses.end(), 1), kBlockCells);
    }
}

TEST(CudaRecord, EveryBitOfALaneHasOnePlace) {
    for (int bits = kMinBits; bits <= kMaxBits; ++bits) {
        std::vector<int> uses(bits * 32);
        for (int slot = 0; slot < cuda::kSlots; ++slot)
            for (int index = 0; index < cuda::kSlotCodes; ++index)
                for (int bit = 0; bit < bits; ++bit) {
                    const cuda::BitPlace at = cuda::bit_place(bits, slot, index, bit);
                    ++uses[at.word * 32 + at.bit];
                }
        EXPECT_EQ(std::count(uses.begin(), uses.end(), 1), bits * 32) << bits;
    }
}

TEST(CudaRecord, WordsOfAHeadFillItsBytes) {
    for (int n_words : {2, 5, 12, 15, 32, 35}) {
        std::vector<int> uses(n_words * cuda::kLanes);
        for (int word = 0; word < n_words; ++word)
            for (int lane = 0; lane < cuda::kLanes; ++lane) {
                const int at = cuda::word_offset(n_words, word, lane);
                ASSERT_EQ(at % 4, 0);
                ++uses[at / 4];
            }
        EXPECT_EQ(std::count(uses.begin(), uses.end(), 1), n_words * cuda::kLanes) << n_words;
    }
}

TEST(CudaRecord, SymbolsStandForCodes) {
    for (int bits = kMinBits; bits <= kMaxBits; ++bits)
        for (uint32_t code = 0; code < 1u << bits; ++code) {
            const uint32_t symbol = cuda::symbol_of_code(bits, code);
            EXPECT_LT(symbol, 1u << bits);
            EXPECT_EQ(cuda::code_of_symbol(bits, symbol), code);
        }
}

class CudaRecords : public testing::TestWithParam<std::tuple<Side, Codes, int>> {};
std::vector<std::tuple<Side, Codes, int>> formats() {
    std::vector<std::tuple<Side, Codes, int>> all;
    for (Side side : {Side::kKey, Side::kValue})
        for (int bits = kMinBits; bits <= kMaxBits; ++bits)
            for (int head_dim : {16, 64, 80, 96, 112, 128, 256}) {
                all.emplace_back(side, bits, head_dim);
                if (side == Side::kKey) all.emplace_back(side, centered(bits), head_dim);
            }
    return all;
}
INSTANTIATE_TEST_SUITE_P(Formats, CudaRecords, testing::ValuesIn(formats()));

TEST_P(CudaRecords, HoldAnyCodesAndScales) {
    const auto [side, codes, head_dim] = GetParam();
    const RowFormat format = make_format(side, codes, 3 * head_dim);
    ASSERT_EQ(cuda::unsupported_reason(format, head_dim), "");
    Random random(1);
    PlainBlock block(format);
    for (uint8_t& code : block.codes) code = static_cast<uint8_t>(random.below(1 << format.bits));
    for (uint8_t& code : block.center_codes) code = static_cast<uint8_t>(random.below(16));
    for (auto* scales : {&block.scales, &block.center_scales})
        for (uint8_t& scale : *scales) scale = static_cast<uint8_t>(random.below(256));
    Bytes record(format.block_bytes() + 1, 0x5a);
    cuda::pack_record(format, head_dim, block, record.data());
    EXPECT_EQ(record.back(), 0x5a);
    EXPECT_TRUE(cuda::unpack_record(format, head_dim, record.data()) == block);
}

// The CPU's record, through rows of codes and scales, and back.
TEST_P(CudaRecords, GoToTheCpuAndBack) {
    const auto [side, codes, head_dim] = GetParam();
    PackedRows packed({side, codes, head_dim, 3, 64});
    Random random(2);
    for (int64_t cell = 0; cell < packed.n_cells; ++cell) packed.encode(random.normals(packed.width()), cell);
    const RowFormat& format = packed.codec.format();
    Bytes record(format.block_bytes()), back(format.block_bytes());
    cuda::pack_record(format, head_dim, unpack_record(format, packed.bytes.data()), record.data());
    pack_record(format, cuda::unpack_record(format, head_dim, record.data()), back.data());
    EXPECT_EQ(back, packed.bytes);
    EXPECT_NE(record, packed.bytes);
}

// The order is what stored bytes mean: a change here makes what a program keeps on a device unreadable to another one.
TEST(CudaRecord, IsGolden) {
    const auto digest = [](Side side, int bits, int head_dim) {
        const RowFormat format = make_format(side, bits, 2 * head_dim);
        Random random(static_cast<uint64_t>(bits));
        PlainBlock block(format);
        for (uint8_t& code : block.codes) code = static_cast<uint8_t>(random.below(1 << bits));
        for (uint8_t& scale : block.scales) scale = static_cast<uint8_t>(random.below(256));
        Bytes record(format.block_bytes());
        cuda::pack_record(format, head_dim, block, record.data());
        return fnv1a(record.data(), record.size());
    };
    EXPECT_EQ(digest(Side::kKey, 4, 128), 0x9074c3abd3dfe665u) << std::hex << digest(Side::kKey, 4, 128);
    EXPECT_EQ(digest(Side::kValue, 4, 128), 0xee375d500db8382eu) << std::hex << digest(Side::kValue, 4, 128);
    EXPECT_EQ(digest(Side::kKey, 3, 80), 0x330dd75ef3e14763u) << std::hex << digest(Side::kKey, 3, 80);
    EXPECT_EQ(digest(Side::kValue, 7, 96), 0xf83c341a0e3629e8u) << std::hex << digest(Side::kValue, 7, 96);
}

TEST(CudaRecord, UnsupportedFormatsHaveAReason) {
    EXPECT_NE(cuda::unsupported_reason(make_format(Side::kKey, trellis(4), 128), 128).find("trellis"),
              std::string::npos);
    EXPECT_NE(cuda::unsupported_reason(make_format(Side::kKey, 4, 128), 8).find("multiples of 16"), std::string::npos);
    EXPECT_NE(cuda::unsupported_reason(make_format(Side::kKey, 4, 128), 48).find("n_embd"), std::string::npos);
}

}  // namespace
}  // namespace tq::test
