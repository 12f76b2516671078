// Plain codes and scales: what decoding means, and the way from one engine's records to another's.
#include "turboquant/format/plain_block.h"

#include <set>

#include <gtest/gtest.h>

#include "tests/support/packed_rows.h"
#include "tests/support/vectors.h"
#include "turboquant/cpu/codec/plain_records.h"
#include "turboquant/format/fingerprint.h"

namespace tq::test {
namespace {

class PlainBlocks : public testing::TestWithParam<std::tuple<Side, Codes, int>> {
  protected:
    PackedShape shape() const {
        auto [side, codes, head_dim] = GetParam();
        return {side, codes, head_dim, 3, 150};
    }
    PackedRows rows() const {
        PackedRows packed(shape());
        Random random(1);
        for (int64_t cell = 0; cell < packed.n_cells; ++cell) {
            std::vector<float> row = random.normals(packed.width());
            for (float& x : row) x += 1;
            packed.encode(row, cell);
        }
        return packed;
    }
};
std::vector<std::tuple<Side, Codes, int>> formats() {
    std::vector<std::tuple<Side, Codes, int>> all;
    for (Side side : {Side::kKey, Side::kValue})
        for (Codes codes : all_codings())
            for (int head_dim : {16, 80, 128}) {
                all.emplace_back(side, codes, head_dim);
                if (side == Side::kKey) all.emplace_back(side, centered(codes), head_dim);
            }
    return all;
}
INSTANTIATE_TEST_SUITE_P(Formats, PlainBlocks, testing::ValuesIn(formats()));

TEST_P(PlainBlocks, DecodeToWhatTheCodecSays) {
    const PackedRows packed = rows();
    const RowFormat& format = packed.codec.format();
    std::vector<float> plain(format.n_embd), rotated(format.n_embd);
    for (int64_t cell = 0; cell < packed.n_cells; ++cell) {
        const PlainBlock block = unpack_record(format, packed.blocks().at(cell / kBlockCells));
        decode_plain(format, block, static_cast<int>(cell % kBlockCells), cell, plain.data());
        packed.codec.decode_rotated(packed.blocks(), cell, rotated.data());
        ASSERT_TRUE(same_bits(plain, rotated)) << cell;
    }
}

TEST_P(PlainBlocks, GoBackToTheSameRecord) {
    const PackedRows packed = rows();
    const RowFormat& format = packed.codec.format();
    for (int64_t block = 0; block < 3; ++block) {
        const uint8_t* record = packed.blocks().at(block);
        Bytes again(format.block_bytes(), 0xff);
        pack_record(format, unpack_record(format, record), again.data());
        EXPECT_EQ(again, Bytes(record, record + again.size())) << block;
    }
}

// The other way: any codes and scales survive.
TEST_P(PlainBlocks, OfAnyCodesSurviveARecord) {
    const RowFormat format = make_format(shape());
    Random random(2);
    PlainBlock block(format);
    for (uint8_t& code : block.codes) code = static_cast<uint8_t>(random.below(1 << format.bits));
    for (uint8_t& code : block.center_codes) code = static_cast<uint8_t>(random.below(16));
    for (auto* scales : {&block.scales, &block.center_scales})
        for (uint8_t& scale : *scales) scale = static_cast<uint8_t>(random.below(256));
    Bytes record(format.block_bytes());
    pack_record(format, block, record.data());
    EXPECT_TRUE(unpack_record(format, record.data()) == block);
}

// The format: a change here makes every stored cache unreadable, and has to change kFormatVersion or a table.
TEST(Fingerprints, AreGolden) {
    const auto of = [](Side side, Codes codes, int head_dim) {
        return PackedRows({side, codes, head_dim, 2, 1}, Isa::kScalar).codec.fingerprint();
    };
    EXPECT_EQ(of(Side::kKey, centered(4), 128), 0x5c25c5696d0c883bu) << std::hex << of(Side::kKey, centered(4), 128);
    EXPECT_EQ(of(Side::kValue, trellis(5), 64), 0x9f9433ac646382d3u) << std::hex << of(Side::kValue, trellis(5), 64);
}

TEST(Fingerprints, DifferInEverythingThatRecordsDependOn) {
    std::set<uint64_t> seen;
    int made = 0;
    const auto add = [&](const PackedShape& shape, const std::vector<float>& scales = {}) {
        seen.insert(PackedRows(shape, Isa::kScalar, scales).codec.fingerprint());
        ++made;
    };
    for (Side side : {Side::kKey, Side::kValue}) {
        for (Codes codes : all_codings()) {
            add({side, codes, 64, 2});
            if (side == Side::kKey) add({side, centered(codes), 64, 2});
        }
        add({side, 4, 64, 4});
        add({side, 4, 128, 1});
        add({side, 4, 32, 4});
        std::vector<float> scales(128, 1.0f);
        add({side, 4, 64, 2}, scales);  // one rotation for each head: the same bytes, but said otherwise
        scales[100] = 1.5f;
        add({side, 4, 64, 2}, scales);
    }
    EXPECT_EQ(std::ssize(seen), made);
}

TEST(Fingerprints, AreTheSameForEveryIsaAndCapacity) {
    for (Isa isa : available_isas()) {
        EXPECT_EQ(PackedRows({Side::kKey, centered(4), 64, 2, 100}, isa).codec.fingerprint(),
                  PackedRows({Side::kKey, centered(4), 64, 2, 7, 3}, Isa::kScalar).codec.fingerprint());
    }
}

}  // namespace
}  // namespace tq::test
