// Every level that the shaders compute is the format's, and every field of a half tile is read.
#include "turboquant/format/levels.h"

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lanes/dispatch.h"
#include "tests/support/packed_rows.h"
#include "turboquant/format/trellis.h"
#include "turboquant/metal/params.h"

TQ_METAL_LIBRARY(metal_levels);

namespace tq::test {
namespace {

void run(const std::string& kernel, std::vector<lanes::Buffer> buffers, uint32_t threads) {
    lanes::Launch launch;
    launch.kernel = kernel;
    launch.buffers = std::move(buffers);
    launch.threadgroups({1, 1, 1}, {threads, 1, 1});
    for (const lanes::Report& report : lanes::run(msl_library_metal_levels, launch)) ADD_FAILURE() << report.text;
}

class MetalLevels : public testing::TestWithParam<Codes> {
  protected:
    const Codes codes_{GetParam()};
    std::string number() const { return std::to_string(codes_.bits + (codes_.trellis ? kTrellisFlag : 0)); }
};
INSTANTIATE_TEST_SUITE_P(Codes, MetalLevels, testing::ValuesIn(all_codings()));

TEST_P(MetalLevels, AreTheFormats) {
    const int n = 1 << (codes_.bits + (codes_.trellis ? 1 : 0));
    std::vector<float> levels(static_cast<size_t>(n), -1000);
    run("levels_" + number(), {lanes::Launch::write(0, levels.data(), levels.size() * sizeof(float))},
        static_cast<uint32_t>(n / 4));
    for (int i = 0; i < n; ++i) {
        if (!codes_.trellis && codes_.bits == kMaxBits && i == 0) continue;  // no code
        const int expected = codes_.trellis ? sorted_trellis_level(codes_.bits, i) : scalar_level(codes_.bits, i);
        EXPECT_EQ(levels[static_cast<size_t>(i)], static_cast<float>(expected)) << i;
    }
}

// A tile of keys of any bytes, whose chains begin with it.
TEST_P(MetalLevels, HalfTilesAreReadAsTheCodecReadsTiles) {
    PackedRows rows({Side::kKey, codes_, 16, 1, kBlockCells}, Isa::kScalar);
    Random random(9);
    for (uint8_t& byte : rows.bytes) byte = static_cast<uint8_t>(random.next());
    const RowFormat& format = rows.codec.format();
    std::fill_n(rows.bytes.data() + scale_offset(format, 0), kBlockCells, uint8_t{168});  // the scale 1
    std::vector<float> out(32 * 8 * 4);
    run("fields_" + number(),
        {lanes::Launch::read(0, rows.bytes.data(), tile_bytes(codes_.bits)),
         lanes::Launch::write(1, out.data(), out.size() * sizeof(float))},
        32);
    for (int cell = 0; cell < kBlockCells; ++cell) {
        std::vector<float> values(16);
        rows.codec.decode_rotated(rows.blocks(), cell, values.data());
        for (int dim = 0; dim < kStepDims; ++dim) {
            const int lane = cell / 32 * 16 + cell % 16, unit = cell / 16 % 2 * 4 + dim / 4;
            const float level = out[static_cast<size_t>((8 * lane + unit) * 4 + dim % 4)];
            if (level == -128 && values[static_cast<size_t>(dim)] == 0) continue;  // 8 bits: no code
            EXPECT_EQ(level, values[static_cast<size_t>(dim)]) << cell << " " << dim;
        }
    }
}

}  // namespace
}  // namespace tq::test
