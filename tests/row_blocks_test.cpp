// Whole blocks of rows against rows one by one: the same bits, whatever bytes the packed memory holds.
#include <gtest/gtest.h>

#include "tests/support/packed_rows.h"
#include "tests/support/vectors.h"

namespace tq::test {
namespace {

constexpr int64_t kCells = 150;  // 3 blocks, the last one in part

struct Range {
    int64_t block;
    int first, n;
};
constexpr Range kRanges[] = {{0, 0, 64}, {0, 1, 7},  {1, 0, 64}, {1, 30, 34},
                             {1, 5, 1},  {1, 60, 4}, {2, 0, 22}, {2, 3, 5}};

void fill_with_any_bytes(PackedRows& packed, Random& random) {
    for (uint8_t& byte : packed.bytes) byte = static_cast<uint8_t>(random.next());
}

void expect_same_rows(const PackedRows& packed, int64_t stream, const Range& range) {
    std::vector<float> rows(range.n * packed.width());
    packed.codec.decode_block(packed.blocks(stream), range.block, range.first, range.n, rows.data());
    for (int i = 0; i < range.n; ++i) {
        const auto begin = rows.begin() + i * packed.width();
        ASSERT_TRUE(same_bits({begin, begin + packed.width()},
                              packed.decode(range.block * kBlockCells + range.first + i, stream)))
            << "cell " << range.first + i << " of block " << range.block;
    }
}

class BlocksOfRows : public testing::TestWithParam<std::tuple<Side, Codes>> {};
std::vector<Codes> codings_of_blocks() {
    std::vector<Codes> codings = all_codings();
    for (Codes coding : all_codings()) codings.push_back(centered(coding));
    return codings;
}
INSTANTIATE_TEST_SUITE_P(Codings, BlocksOfRows,
                         testing::Combine(testing::Values(Side::kKey, Side::kValue),
                                          testing::ValuesIn(codings_of_blocks())));

TEST_P(BlocksOfRows, HaveTheBitsOfRowsOneByOne) {
    const auto [side, coding] = GetParam();
    if (side == Side::kValue && coding.centered) return;  // there are none
    Random random(1);
    for (int head_dim : {16, 48, 80, 496}) {
        for (Isa isa : available_isas()) {
            PackedRows packed({side, coding, head_dim, 3, kCells, 2}, isa);
            fill_with_any_bytes(packed, random);
            for (const Range& range : kRanges) expect_same_rows(packed, random.below(2), range);
        }
    }
}

TEST_P(BlocksOfRows, OfChannelScalesToo) {
    const auto [side, coding] = GetParam();
    if (side == Side::kValue && coding.centered) return;
    Random random(2);
    PackedRows packed({side, coding, 80, 3, kCells, 1}, available_isas().back(), random_scales(240, random));
    fill_with_any_bytes(packed, random);
    for (const Range& range : kRanges) expect_same_rows(packed, 0, range);
}

// Any bytes are a cache: what they decode to is finite, and they can be written over, copied and cleared.
TEST_P(BlocksOfRows, AnyBytesCanBeUsed) {
    const auto [side, coding] = GetParam();
    if (side == Side::kValue && coding.centered) return;
    Random random(3);
    PackedRows packed({side, coding, 80, 3, kCells, 2});
    fill_with_any_bytes(packed, random);
    for (int trial = 0; trial < 40; ++trial) {
        const int64_t cell = random.below(kCells), other = random.below(kCells), stream = random.below(2);
        switch (random.below(5)) {
            case 0:
                packed.copy(stream, cell, 1 - stream, other);
                break;
            case 1:
                packed.codec.clear(packed.blocks(stream), cell);
                EXPECT_EQ(packed.cell_bytes(cell, stream), Bytes(packed.cell_bytes(cell, stream).size()));
                break;
            case 2: {
                const std::vector<float> rows = random.normals(64 * packed.width());
                packed.codec.encode_block(rows.data(), random.next() & 0x3fffff, packed.blocks(stream),
                                          cell / kBlockCells);
                break;
            }
            default: {
                const std::vector<float> row = random.normals(packed.width());
                packed.encode(row, cell, stream);
                for (float x : packed.decode(cell, stream)) ASSERT_TRUE(std::isfinite(x));
            }
        }
    }
    for (int64_t cell = 0; cell < kCells; ++cell) {
        for (float x : packed.decode(cell, 1)) ASSERT_TRUE(std::isfinite(x));
    }
}

}  // namespace
}  // namespace tq::test
