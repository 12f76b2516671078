// These tests check where bits lie: presets, offsets of tiles and scales, codes in a tile.
#include "turboquant/codec/layout.h"

#include <algorithm>
#include <array>

#include <gtest/gtest.h>

#include "tests/support/bytes.h"
#include "tests/support/packed_rows.h"
#include "tests/support/random.h"

namespace tq::test {
namespace {

// ---- presets
// ----------------------------------------------------------------------------------------------------------

TEST(Preset, ParsesAllPairs) {
    for (int k = 2; k <= 8; ++k)
        for (int v = 2; v <= 8; ++v) {
            const std::string name = "k" + std::to_string(k) + "v" + std::to_string(v);
            const Preset preset = Preset::parse(name).value();
            EXPECT_EQ(preset.bits(Side::kKey), k);
            EXPECT_EQ(preset.bits(Side::kValue), v);
            EXPECT_EQ(preset.name(), name);
        }
}

TEST(Preset, ParsesBitsPerValue) {
    for (int bits = 2; bits <= 8; ++bits) {
        const Preset preset = Preset::parse(std::to_string(bits)).value();
        EXPECT_EQ(preset.key_bits, bits);
        EXPECT_EQ(preset.value_bits, bits);
    }
    for (int bits = 2; bits <= 7; ++bits) {
        const Preset preset = Preset::parse(std::to_string(bits) + ".5").value();
        EXPECT_EQ(preset.key_bits, bits);
        EXPECT_EQ(preset.value_bits, bits + 1);
    }
}

TEST(Preset, ParsesTrellisCodes) {
    for (int bits = 3; bits <= 5; ++bits) {
        const std::string name = "k" + std::to_string(bits) + "tv" + std::to_string(bits) + "t";
        const Preset preset = Preset::parse(name).value();
        EXPECT_TRUE(preset.trellis(Side::kKey) && preset.trellis(Side::kValue));
        EXPECT_EQ(preset.name(), name);
    }
    const Preset values = Preset::parse("k8v3t").value();
    EXPECT_FALSE(values.trellis(Side::kKey));
    EXPECT_TRUE(values.trellis(Side::kValue));
    EXPECT_EQ(values.name(), "k8v3t");
}

TEST(Preset, ParsesCenteredKeys) {
    for (const char* name : {"k2cv4", "k8cv8", "k4ctv4t", "k3cv3t"}) {
        const Preset preset = Preset::parse(name).value();
        EXPECT_TRUE(preset.centered(Side::kKey));
        EXPECT_FALSE(preset.centered(Side::kValue));
        EXPECT_EQ(preset.name(), name);
    }
    EXPECT_FALSE(Preset::parse("k4tv4t").value().centered(Side::kKey));
}

TEST(Preset, NamesStandForWhatTheErrorMessageSays) {
    const std::string message = Preset::parse("").status().message();
    for (const char* name : kPresetNames) {
        const Preset preset = Preset::parse(name).value();
        const std::string whole = preset.name() + exact_cells_of_name(name).name();
        EXPECT_NE(message.find(std::string(name) + " (" + whole + ")"), std::string::npos) << name;
        EXPECT_EQ(Preset::parse(preset.name()).value().name(), preset.name());
    }
}

TEST(Preset, NamesButLosslessHaveExactCells) {
    EXPECT_EQ(exact_cells_of_name("balanced").name(), "+sink1+recent15");
    EXPECT_EQ(exact_cells_of_name("tiny").name(), "+sink4+recent60");
    for (const char* text : {"lossless", "k4cv4", "4", "", "Fast"})
        EXPECT_FALSE(exact_cells_of_name(text).any()) << text;
}

TEST(Preset, RefusesOthersAndListsTheValid) {
    for (const char* text : {"",    "k4v4c", "k4tcv4", "k4ccv4", "kc4v4", "k2tv4", "k4v6t", "k4ttv4", "k4tv4tt",
                             "k4t", "t4",    "4t",     "1",      "9",     "1.5",   "8.5",   "3.25",   "k4",
                             "k4v", "k1v4",  "k4v9",   "v4k4",   "K4V4",  "k4v4 ", "k10v4", "4,5"}) {
        const auto preset = Preset::parse(text);
        ASSERT_FALSE(preset.ok()) << text;
        EXPECT_EQ(preset.status().error(), Error::kInvalidArgument);
        for (const char* part : {"k4v4", "2.5", "2 to 8"})
            EXPECT_NE(preset.status().message().find(part), std::string::npos);
    }
}

TEST(Preset, EffectiveBitsCountTheScales) {
    EXPECT_DOUBLE_EQ(effective_bits(Preset{}, Side::kKey), 4.25);
    EXPECT_DOUBLE_EQ(effective_bits(Preset{}, Side::kValue), 4.125);
    EXPECT_DOUBLE_EQ(effective_bits(Preset{5, 3}), (5.25 + 3.125) / 2);
    const Preset centered = Preset::parse("k3ctv4").value();
    EXPECT_DOUBLE_EQ(effective_bits(centered), (3.25 + 4.25 / 64 + 4.125) / 2);
    const PackedLayout layout = PackedLayout::create(Side::kKey, 3, 256, 512, 2, true, true).value();
    EXPECT_DOUBLE_EQ(layout.effective_bits(), effective_bits(centered, Side::kKey));
}

// ---- tensors
// ----------------------------------------------------------------------------------------------------------

struct TensorShape {
    int64_t n_embd, n_cells, n_stream;
};

class LayoutOfTensor : public testing::TestWithParam<std::tuple<Side, int, TensorShape>> {
  protected:
    PackedLayout layout() const {
        const auto& [side, bits, shape] = GetParam();
        return PackedLayout::create(side, bits, shape.n_embd, shape.n_cells, shape.n_stream).value();
    }
};
INSTANTIATE_TEST_SUITE_P(Shapes, LayoutOfTensor,
                         testing::Combine(testing::Values(Side::kKey, Side::kValue), testing::Values(2, 3, 7, 8),
                                          testing::Values(TensorShape{16, 1, 1}, TensorShape{80, 64, 1},
                                                          TensorShape{240, 65, 3}, TensorShape{512, 200, 2})));

// Every byte of the tensor belongs to exactly one tile or one row of scales.
TEST_P(LayoutOfTensor, TilesAndScalesCoverEveryByteOnce) {
    const PackedLayout l = layout();
    std::vector<int> uses(l.bytes());
    const auto use = [&](size_t begin, size_t n) {
        ASSERT_LE(begin + n, uses.size());
        EXPECT_EQ(begin % 64, 0u);
        for (size_t i = begin; i < begin + n; ++i) ++uses[i];
    };
    for (int64_t stream = 0; stream < l.n_stream; ++stream)
        for (int64_t block = 0; block < l.n_blocks(); ++block) {
            for (int64_t step = 0; step < l.n_steps(); ++step) use(l.tile_offset(stream, step, block), l.tile_bytes());
            for (int64_t group = 0; group < l.n_groups(); ++group)
                use(l.scale_offset(stream, group, block), kBlockCells);
        }
    EXPECT_EQ(std::count(uses.begin(), uses.end(), 1), static_cast<int64_t>(uses.size()));
}

TEST_P(LayoutOfTensor, BytesAreCodesPlusScalesOfWholeBlocks) {
    const PackedLayout l = layout();
    const int64_t blocks = (l.n_cells + 63) / 64, width = l.side == Side::kKey ? 32 : 64;
    const int64_t scales = (l.n_embd + width - 1) / width * blocks * 64, codes = l.n_embd * blocks * 64 * l.bits / 8;
    EXPECT_EQ(l.bytes(), static_cast<size_t>(l.n_stream * (codes + scales)));
    EXPECT_EQ(l.code_plane_bytes(), static_cast<size_t>(l.n_stream * codes));
}

TEST_P(LayoutOfTensor, StepsOfGroupsAddUp) {
    const PackedLayout l = layout();
    int64_t steps = 0;
    for (int64_t group = 0; group < l.n_groups(); ++group) {
        for (int64_t i = 0; i < l.steps_in_group(group); ++i) EXPECT_EQ(l.group_of_step(steps + i), group);
        steps += l.steps_in_group(group);
    }
    EXPECT_EQ(steps, l.n_steps());
}

TEST(Layout, FullBlocksCostTheEffectiveBits) {
    for (Side side : {Side::kKey, Side::kValue})
        for (int bits = 2; bits <= 8; ++bits) {
            EXPECT_DOUBLE_EQ(PackedLayout::create(side, bits, 256, 128, 2).value().effective_bits(),
                             effective_bits(Preset{bits, bits}, side));
        }
}

TEST(Layout, RefusesBadArgumentsByName) {
    const auto expect_refused = [](const Result<PackedLayout>& layout, const char* name) {
        ASSERT_FALSE(layout.ok()) << name;
        EXPECT_EQ(layout.status().error(), Error::kInvalidArgument);
        EXPECT_NE(layout.status().message().find(name), std::string::npos) << layout.status().message();
    };
    expect_refused(PackedLayout::create(Side::kValue, 4, 64, 64, 1, false, true), "keys");
    for (int bits : {2, 6}) expect_refused(PackedLayout::create(Side::kKey, bits, 64, 64, 1, true), "bits");
    for (int bits : {-1, 0, 1, 9}) expect_refused(PackedLayout::create(Side::kKey, bits, 64, 64, 1), "bits");
    for (int64_t n : {-16, 0, 8, 100, 1 << 25}) expect_refused(PackedLayout::create(Side::kKey, 4, n, 64, 1), "n_embd");
    for (int64_t n : {int64_t{-1}, int64_t{0}, int64_t{1} << 50})
        expect_refused(PackedLayout::create(Side::kKey, 4, 64, n, 1), "n_cells");
    for (int64_t n : {int64_t{-1}, int64_t{0}, int64_t{1} << 50})
        expect_refused(PackedLayout::create(Side::kKey, 4, 64, 64, n), "n_stream");
}

// ---- codes in a tile
// --------------------------------------------------------------------------------------------------

using Codes = std::array<uint8_t, kStepDims>;

class CodesInTile : public testing::TestWithParam<std::tuple<Side, Coding>> {
  protected:
    const Side side_ = std::get<0>(GetParam());
    const PackedLayout layout_ = make_layout({side_, std::get<1>(GetParam()), 64});
    const int bits_ = layout_.bits;
    const size_t tile_bytes_ = size_t{128} * bits_;
    Random random_{static_cast<uint64_t>(bits_)};

    Codes random_codes() {
        Codes codes;
        for (uint8_t& c : codes) c = static_cast<uint8_t>(random_.below(1 << bits_));
        return codes;
    }
    // The code at a position, bit by bit from the documentation.
    int code_at(const Bytes& tile, int dim, int cell) const {
        const TilePosition at = tile_position(side_, dim, cell);
        const CodePlanes planes = code_planes(bits_, layout_.trellis);
        int code = 0;
        for (int p = 0; p < planes.count; ++p) {
            // 4-bit trellis codes: a bit of each of two units in turn, in every byte
            const bool shared = layout_.trellis && bits_ == 4;
            const int width = planes.plane[p].width, units = shared ? 2 : 8 / width, u = at.unit % units;
            const int byte = tile[planes.plane[p].byte_offset + 64 * (at.unit / units) + 4 * at.lane + at.byte];
            const int bit = !shared ? width * u : p == 3 ? 6 + u : 2 * p + 1 - u;
            code |= ((byte >> bit) & ((1 << width) - 1)) << planes.plane[p].shift;
        }
        return code;
    }
};
INSTANTIATE_TEST_SUITE_P(All, CodesInTile,
                         testing::Combine(testing::Values(Side::kKey, Side::kValue), testing::ValuesIn(all_codings())));

TEST_P(CodesInTile, LieWhereDocumentedAndRoundTrip) {
    Bytes tile(tile_bytes_);
    std::vector<Codes> cells;
    for (int cell = 0; cell < kBlockCells; ++cell) {
        cells.push_back(random_codes());
        insert_codes(layout_, cell, cells[cell].data(), tile.data());
    }
    for (int cell = 0; cell < kBlockCells; ++cell) {
        Codes codes;
        extract_codes(layout_, cell, tile.data(), codes.data());
        EXPECT_EQ(codes, cells[cell]) << cell;
        for (int dim = 0; dim < kStepDims; ++dim)
            EXPECT_EQ(code_at(tile, dim, cell), cells[cell][dim]) << cell << " " << dim;
    }
}

TEST_P(CodesInTile, InsertingOneCellLeavesTheOthers) {
    for (int cell = 0; cell < kBlockCells; ++cell) {
        Bytes tile(tile_bytes_);
        for (uint8_t& b : tile) b = static_cast<uint8_t>(random_.next());
        const Bytes before = tile;
        insert_codes(layout_, cell, random_codes().data(), tile.data());
        for (int other = 0; other < kBlockCells; ++other) {
            Codes a, b;
            extract_codes(layout_, other, before.data(), a.data());
            extract_codes(layout_, other, tile.data(), b.data());
            if (other != cell) {
                ASSERT_EQ(a, b) << cell << " disturbs " << other;
            }
        }
    }
}

}  // namespace
}  // namespace tq::test
