// These tests check where bits lie: presets, offsets of tiles and scales, codes in a tile.
#include <algorithm>
#include <array>

#include <gtest/gtest.h>

#include "tests/support/bytes.h"
#include "tests/support/packed_rows.h"
#include "tests/support/random.h"
#include "turboquant/cpu/record.h"
#include "turboquant/format/layer_presets.h"

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
        EXPECT_TRUE(is_trellis(preset.coding(Side::kKey)) && is_trellis(preset.coding(Side::kValue)));
        EXPECT_EQ(preset.name(), name);
    }
    const Preset values = Preset::parse("k8v3t").value();
    EXPECT_FALSE(is_trellis(values.coding(Side::kKey)));
    EXPECT_TRUE(is_trellis(values.coding(Side::kValue)));
    EXPECT_EQ(values.name(), "k8v3t");
}

TEST(Preset, ParsesCenteredKeys) {
    for (const char* name : {"k2cv4", "k8cv8", "k4ctv4t", "k3cv3t"}) {
        const Preset preset = Preset::parse(name).value();
        EXPECT_TRUE(is_centered(preset.coding(Side::kKey)));
        EXPECT_FALSE(is_centered(preset.coding(Side::kValue)));
        EXPECT_EQ(preset.name(), name);
    }
    EXPECT_FALSE(is_centered(Preset::parse("k4tv4t").value().coding(Side::kKey)));
}

TEST(Preset, NamesStandForWhatTheErrorMessageSays) {
    const std::string message = Preset::parse("").status().message();
    for (const char* name : kPresetNames) {
        const Preset preset = Preset::parse(name).value();
        EXPECT_NE(message.find(LayerPresets::parse(name)->title()), std::string::npos) << name;
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
    // 4096 values: their center ends with a cache line, so that the record has no padding.
    const RowFormat format = RowFormat::create(centered, Side::kKey, 4096).value();
    EXPECT_DOUBLE_EQ(format.effective_bits(), effective_bits(centered, Side::kKey));
}

// ---- records --------------------------------------------------------------------------------------------------------

class Record : public testing::TestWithParam<std::tuple<Side, Codes, int>> {
  protected:
    RowFormat format() const {
        const auto& [side, codes, n_embd] = GetParam();
        return make_format(side, side == Side::kKey ? codes : Codes(codes.bits, codes.trellis), n_embd);
    }
};
INSTANTIATE_TEST_SUITE_P(Formats, Record,
                         testing::Combine(testing::Values(Side::kKey, Side::kValue),
                                          testing::Values(Codes(2), Codes(3), Codes(7), Codes(8), centered(4),
                                                          centered(trellis(5))),
                                          testing::Values(16, 80, 240, 512)));

// Every byte of a record belongs to exactly one tile, one row of scales, the center or the padding behind it.
TEST_P(Record, TilesScalesAndCenterCoverEveryByteOnce) {
    const RowFormat f = format();
    std::vector<int> uses(f.block_bytes());
    const auto use = [&](size_t begin, size_t n) {
        ASSERT_LE(begin + n, uses.size());
        EXPECT_EQ(begin % 64, 0u);
        for (size_t i = begin; i < begin + n; ++i) ++uses[i];
    };
    for (int64_t step = 0; step < f.n_steps(); ++step) use(tile_offset(f, step), tile_bytes(f.bits));
    for (int64_t group = 0; group < f.n_groups(); ++group) use(scale_offset(f, group), kBlockCells);
    if (f.centered()) use(center_offset(f), f.center_bytes());
    const auto used = static_cast<int64_t>(f.rows_bytes() + f.center_bytes());
    EXPECT_EQ(std::count(uses.begin(), uses.end(), 1), used);
    EXPECT_EQ(std::count(uses.begin(), uses.begin() + used, 1), used);
    EXPECT_LT(std::ssize(uses) - used, 64);
    EXPECT_EQ(uses.size() % kRecordAlignment, 0u);
}

TEST_P(Record, HasTheBytesOfCodesScalesAndCenter) {
    const RowFormat f = format();
    const int64_t width = f.side == Side::kKey ? 32 : 64, groups = (f.n_embd + width - 1) / width;
    EXPECT_EQ(f.rows_bytes(), static_cast<size_t>(f.n_embd * 64 * f.bits / 8 + groups * 64));
    EXPECT_EQ(f.center_bytes(), f.centered() ? static_cast<size_t>(f.n_embd / 2 + groups) : 0u);
}

TEST_P(Record, StepsOfGroupsAddUp) {
    const RowFormat f = format();
    int64_t steps = 0;
    for (int64_t group = 0; group < f.n_groups(); ++group) {
        for (int64_t i = 0; i < f.steps_in_group(group); ++i) EXPECT_EQ(f.group_of_step(steps + i), group);
        steps += f.steps_in_group(group);
    }
    EXPECT_EQ(steps, f.n_steps());
}

TEST(RowFormat, BlocksCostTheEffectiveBits) {
    for (Side side : {Side::kKey, Side::kValue})
        for (int bits = 2; bits <= 8; ++bits) {
            EXPECT_DOUBLE_EQ(RowFormat::create(side, bits, 256).value().effective_bits(),
                             effective_bits(Preset{bits, bits}, side));
        }
}

TEST(RowFormat, RefusesBadArgumentsByName) {
    const auto expect_refused = [](const Result<RowFormat>& format, const char* name) {
        ASSERT_FALSE(format.ok()) << name;
        EXPECT_EQ(format.status().error(), Error::kInvalidArgument);
        EXPECT_NE(format.status().message().find(name), std::string::npos) << format.status().message();
    };
    expect_refused(RowFormat::create(Side::kValue, 4, 64, Coding::kCentered), "keys");
    for (int bits : {2, 6}) expect_refused(RowFormat::create(Side::kKey, bits, 64, Coding::kTrellis), "bits");
    for (int bits : {-1, 0, 1, 9}) expect_refused(RowFormat::create(Side::kKey, bits, 64), "bits");
    for (int64_t n : {-16, 0, 8, 100, 1 << 25}) expect_refused(RowFormat::create(Side::kKey, 4, n), "n_embd");
}

// ---- codes in a tile
// --------------------------------------------------------------------------------------------------

using StepCodes = std::array<uint8_t, kStepDims>;

class CodesInTile : public testing::TestWithParam<std::tuple<Side, Codes>> {
  protected:
    const Side side_ = std::get<0>(GetParam());
    const RowFormat format_ = make_format({side_, std::get<1>(GetParam()), 64});
    const int bits_ = format_.bits;
    const size_t tile_bytes_ = size_t{128} * bits_;
    Random random_{static_cast<uint64_t>(bits_)};

    StepCodes random_codes() {
        StepCodes codes;
        for (uint8_t& c : codes) c = static_cast<uint8_t>(random_.below(1 << bits_));
        return codes;
    }
    // The code at a position, bit by bit from the documentation.
    int code_at(const Bytes& tile, int dim, int cell) const {
        const TilePosition at = tile_position(side_, dim, cell);
        const CodePlanes planes = code_planes(bits_, format_.trellis());
        int code = 0;
        for (int p = 0; p < planes.count; ++p) {
            // 4-bit trellis codes: a bit of each of two units in turn, in every byte
            const bool shared = format_.trellis() && bits_ == 4;
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
    std::vector<StepCodes> cells;
    for (int cell = 0; cell < kBlockCells; ++cell) {
        cells.push_back(random_codes());
        insert_codes(format_, cell, cells[cell].data(), tile.data());
    }
    for (int cell = 0; cell < kBlockCells; ++cell) {
        StepCodes codes;
        extract_codes(format_, cell, tile.data(), codes.data());
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
        insert_codes(format_, cell, random_codes().data(), tile.data());
        for (int other = 0; other < kBlockCells; ++other) {
            StepCodes a, b;
            extract_codes(format_, other, before.data(), a.data());
            extract_codes(format_, other, tile.data(), b.data());
            if (other != cell) {
                ASSERT_EQ(a, b) << cell << " disturbs " << other;
            }
        }
    }
}

}  // namespace
}  // namespace tq::test
