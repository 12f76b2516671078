// Centers of keys in caches that are used again: which text was there before must not matter.
#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/support/packed_rows.h"
#include "tests/support/vectors.h"
#include "turboquant/base/half.h"

namespace tq::test {
namespace {

constexpr int64_t kCells = 200;  // 4 blocks, the last one in part
using Rows = std::vector<std::vector<float>>;

struct CenterCase {
    Codes coding;
    int head_dim;
};
void PrintTo(const CenterCase& c, std::ostream* out) {
    *out << "k" << c.coding << " of " << c.head_dim;
}

std::vector<CenterCase> center_cases() {
    std::vector<CenterCase> cases;
    for (Codes coding : all_codings()) cases.push_back({centered(coding), 80});
    for (int head_dim : {16, 48, 64, 128, 496}) cases.push_back({centered(4), head_dim});
    cases.push_back({centered(trellis(3)), 496});  // slices of 992 dims, larger than what a kernel takes at once
    return cases;
}

// A text: keys with a part of their own that they have in common.
Rows text(int64_t width, int64_t n, Random& random) {
    const std::vector<float> common = random.normals(width, 2);
    Rows rows;
    for (int64_t i = 0; i < n; ++i) {
        rows.push_back(random.normals(width));
        for (int64_t d = 0; d < width; ++d) rows.back()[d] += common[d];
    }
    return rows;
}

class Centers : public testing::TestWithParam<CenterCase> {
  protected:
    PackedRows make(int64_t n_stream = 1) const {
        return PackedRows({Side::kKey, GetParam().coding, GetParam().head_dim, 3, kCells, n_stream});
    }
    // Twice the squared error of the codes, relative to what is encoded: a value that moved to another center has been
    // encoded twice.
    double allowed() const {
        constexpr double kOnce[] = {0.13, 0.036, 0.0095, 0.0027, 0.0009, 0.0004, 0.0002};
        return 2.2 * kOnce[GetParam().coding.bits - kMinBits];
    }
};
INSTANTIATE_TEST_SUITE_P(Cases, Centers, testing::ValuesIn(center_cases()));

void write(PackedRows& packed, const Rows& rows, int64_t first, int64_t end) {
    for (int64_t cell = first; cell < end; ++cell) packed.encode(rows[cell], cell);
}

// Returns the squared error of cells [first, end), relative to the energy that differs between tokens.
double relative_error(const PackedRows& packed, const Rows& rows, int64_t first, int64_t end, int64_t stream = 0) {
    double error = 0;
    for (int64_t cell = first; cell < end; ++cell) error += squared_distance(packed.decode(cell, stream), rows[cell]);
    return error / static_cast<double>((end - first) * packed.width());
}

TEST_P(Centers, CellsThatAreUsedAgainAreAsFresh) {
    Random random(1);
    PackedRows used = make(), fresh = make();
    const Rows before = text(used.width(), kCells, random), after = text(used.width(), kCells, random);
    write(used, before, 0, kCells);
    write(used, after, 0, kCells);
    write(fresh, after, 0, kCells);
    EXPECT_EQ(used.bytes, fresh.bytes);
}

TEST_P(Centers, RollingBackAndWritingAgainIsAsIfNothingHadBeenThere) {
    Random random(2);
    PackedRows fresh = make();
    Rows after = text(fresh.width(), kCells, random);
    const Rows rejected = text(fresh.width(), kCells, random);
    write(fresh, after, 0, 140);
    for (int64_t length : {0, 1, 2, 3, 63, 64, 65, 127, 128, 129}) {
        PackedRows packed = make();
        write(packed, after, 0, length);
        write(packed, rejected, length, 140);
        write(packed, after, length, 140);
        EXPECT_EQ(packed.bytes, fresh.bytes) << length;
    }
}

TEST_P(Centers, ARingKeepsTheLiveCellsValues) {
    Random random(3);
    PackedRows ring = make();
    const Rows first = text(ring.width(), kCells, random), second = text(ring.width(), kCells, random);
    write(ring, first, 0, kCells);
    for (int64_t end : {1, 2, 3, 30, 64, 65, 130, 192, 200}) {
        PackedRows packed = ring;
        write(packed, second, 0, end);
        // Behind a block's first cells what is new is coded around a center of the new text.
        if (end == kCells) {
            EXPECT_LT(relative_error(packed, second, 64, end), allowed()) << end;
        }
        // Cells in a block whose center changed differ from it by what the two texts have in common, too.
        if (end < kCells) {
            EXPECT_LT(relative_error(packed, first, end, kCells), 10 * allowed()) << end;
        }
        const int64_t untouched = (end + kBlockCells - 1) / kBlockCells * kBlockCells;
        for (int64_t cell = untouched; cell < kCells; ++cell)
            ASSERT_EQ(packed.cell_bytes(cell), ring.cell_bytes(cell)) << end;
    }
}

// Cells that are about to be written need not be moved first; the bytes are the same.
TEST_P(Centers, CellsThatAreWrittenNextAreNotMoved) {
    Random random(4);
    PackedRows one_by_one = make(), together = make();
    const Rows before = text(together.width(), kCells, random), after = text(together.width(), kCells, random);
    for (PackedRows* packed : {&one_by_one, &together}) write(*packed, before, 0, kCells);
    write(one_by_one, after, 64, 128);
    for (int64_t cell = 64; cell < 128; ++cell) {
        together.codec.encode(after[cell].data(), together.blocks(0), cell, ~uint64_t{0});
    }
    EXPECT_EQ(together.bytes, one_by_one.bytes);
}

TEST_P(Centers, ABlockOfTurnedRowsIsCenteredOnThem) {
    Random random(5);
    PackedRows packed = make();
    const Rows before = text(packed.width(), kCells, random), after = text(packed.width(), kCells, random);
    write(packed, before, 0, kCells);
    for (int64_t block = 0; block < 4; ++block) {
        std::vector<float> dense;
        for (int64_t i = 0; i < kBlockCells; ++i) {
            const auto& row = after[std::min(block * kBlockCells + i, kCells - 1)];
            dense.insert(dense.end(), row.begin(), row.end());
        }
        const uint64_t cells = block == 3 ? 0xff : ~uint64_t{0};
        packed.codec.encode_block(dense.data(), cells, packed.blocks(0), block);
    }
    EXPECT_LT(relative_error(packed, after, 2, kCells), allowed());
}

TEST_P(Centers, ABlockWrittenInPartKeepsTheRest) {
    Random random(6);
    PackedRows packed = make();
    const Rows before = text(packed.width(), kCells, random), after = text(packed.width(), kCells, random);
    write(packed, before, 0, kCells);
    std::vector<float> dense(64 * packed.width());
    for (int64_t i : {3, 17}) std::copy(after[i].begin(), after[i].end(), dense.begin() + i * packed.width());
    for (int64_t block : {0, 1}) packed.codec.encode_block(dense.data(), 1 << 3 | 1 << 17, packed.blocks(0), block);
    EXPECT_LT(relative_error(packed, before, 18, 64), 10 * allowed());
    EXPECT_LT(relative_error(packed, before, 64 + 18, 128), 10 * allowed());
    EXPECT_LT(relative_error(packed, after, 3, 4), allowed());
}

// copy(0, 0, 1, 2, 20): the first rows have no center where they come from, but one where they go to.
TEST_P(Centers, CopiesToAnotherOffsetKeepTheirValues) {
    Random random(7);
    PackedRows packed = make(2);
    const Rows rows = text(packed.width(), kCells, random);
    write(packed, rows, 0, kCells);
    for (auto [from, to, n] : {std::array{0, 2, 20}, {0, 64, 100}, {0, 70, 64}, {64, 0, 100}, {1, 0, 150}}) {
        PackedRows copied = packed;
        for (int i = 0; i < n; ++i) copied.copy(0, from + i, 1, to + i);
        for (int i = 0; i < n; ++i) {
            const std::vector<float> source = packed.decode(from + i);
            const double error = squared_distance(copied.decode(to + i, 1), source) / dot(source, source);
            EXPECT_LT(error, allowed()) << from << " to " << to << " cell " << i;
        }
    }
    // Whole blocks arrive byte for byte.
    for (int i = 64; i < 192; ++i) packed.copy(0, i, 1, i);
    for (int i = 64; i < 192; ++i) ASSERT_EQ(packed.decode(i, 1), packed.decode(i, 0)) << i;
}

// The format: a change here makes every stored cache unreadable. Values exact in binary on every platform.
TEST(CentersOfKeys, PackedBytesAreGoldenOnEveryIsa) {
    struct Golden {
        Codes coding;
        uint64_t hash;
    };
    constexpr Golden kGolden[] = {{centered(4), 0xdfcc23717068496a},
                                  {centered(8), 0xfd9b27443d3410a8},
                                  {centered(trellis(4)), 0x674f765bbe570e3e}};
    for (const auto& [coding, hash] : kGolden) {
        for (Isa isa : available_isas()) {
            PackedRows packed({Side::kKey, coding, 80, 2, 140}, isa);
            Random random(6);
            std::vector<float> common(packed.width());
            for (float& x : common) x = 3 * random.bell();
            for (int64_t cell = 0; cell < 140; ++cell) {
                std::vector<float> row = common;
                for (float& x : row) x += random.bell();
                packed.encode(row, cell);
            }
            EXPECT_EQ(fnv1a(packed.bytes.data(), packed.bytes.size()), hash)
                << coding << " " << isa_name(isa) << std::hex << " 0x"
                << fnv1a(packed.bytes.data(), packed.bytes.size());
        }
    }
}

}  // namespace
}  // namespace tq::test
