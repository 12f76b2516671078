// The worked example of docs/codec.md, number for number. If it fails, the format has changed: so must the document.
#include <array>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "turboquant/cpu/codec/row_codec.h"
#include "turboquant/format/scale.h"

namespace tq::test {
namespace {

constexpr std::array<float, 16> kRow = {1, 2, 3, 4, 5, 6, 7, 8, -1, -2, -3, -4, -5, -6, -7, -8};
constexpr std::array<float, 16> kRotated = {-3.75f, -4.25f, -9.75f, 0.75f, 7.25f, 0.75f,  -1.75f, -5.25f,
                                            3.75f,  3.25f,  -2.25f, 8.25f, 0.75f, -7.75f, 5.75f,  2.25f};
constexpr std::array<uint8_t, 16> kCodes = {4, 3, 0, 8, 14, 8, 6, 2, 11, 11, 5, 14, 8, 1, 13, 10};
constexpr uint8_t kScale = 0x8a;
constexpr int kCell = 5;

class CodecExample : public testing::Test {
  protected:
    const RowCodec codec_ = RowCodec::create(RowFormat::create(Side::kKey, 4, 16).value(), 16, Isa::kScalar).value();
};

TEST_F(CodecExample, Rotation) {
    std::array<float, 16> rotated;
    codec_.kernels().rotate_row(codec_.rotation(0), kRow.data(), rotated.data());
    EXPECT_EQ(rotated, kRotated);
}

TEST_F(CodecExample, ScaleAndCodes) {
    std::array<uint8_t, 16> codes;
    uint8_t scale;
    codec_.kernels().encode_groups(codec_.book(), kRotated.data(), 16, 32, false, codes.data(), &scale);
    EXPECT_EQ(scale, kScale);
    EXPECT_EQ(codes, kCodes);
    EXPECT_EQ(scale_from_code(kScale), 0.078125f);
}

TEST_F(CodecExample, Bytes) {
    std::vector<uint8_t> packed(codec_.format().block_bytes());
    codec_.encode(kRow.data(), Blocks{packed.data(), packed.size()}, kCell);
    EXPECT_EQ(packed.size(), 576u);
    const std::map<size_t, uint8_t> expected = {{20, 0xe4}, {21, 0x83}, {22, 0x60}, {23, 0x28},   {84, 0x8b},
                                                {85, 0x1b}, {86, 0xd5}, {87, 0xae}, {517, kScale}};
    for (size_t i = 0; i < packed.size(); ++i) EXPECT_EQ(packed[i], expected.contains(i) ? expected.at(i) : 0) << i;
}

}  // namespace
}  // namespace tq::test
