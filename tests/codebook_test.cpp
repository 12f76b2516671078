// The codebook tables against the Lloyd-Max quantizer that they come from, derived here again.
#include "turboquant/format/codebook.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/support/gaussian_quantizer.h"
#include "turboquant/format/preset.h"

namespace tq::test {
namespace {

// Rounding levels to int8, and values to integers before the look-up, costs at most this factor in distortion.
double allowed_loss(int bits) {
    constexpr double kLoss[] = {1.01, 1.01, 1.01, 1.04, 1.23, 1.61};
    return kLoss[bits - kMinBits];
}

std::vector<int> positive_levels(const Codebook& book) {
    const int codes = 1 << book.bits;
    return {book.centroid.begin() + codes / 2, book.centroid.begin() + codes};
}

// The quantizer that the tables make of a unit Gaussian: magnitude m serves values that round to m.
GaussianQuantizer quantizer_of_tables(const Codebook& book) {
    GaussianQuantizer q;
    q.borders.push_back(0);
    for (int m = 0; m < 128; ++m) {
        const double level = book.nearest.byte[m] / static_cast<double>(book.sigma_units);
        if (!q.levels.empty() && level == q.levels.back()) continue;
        if (m > 0) q.borders.push_back((m - 0.5) / book.sigma_units);
        q.levels.push_back(level);
    }
    q.borders.push_back(std::numeric_limits<double>::infinity());
    return q;
}

class CodebookOfBits : public testing::TestWithParam<int> {
  protected:
    const int bits_ = GetParam();
    const Codebook& book_ = codebook(bits_);
};
class LloydMaxOfBits : public CodebookOfBits {};

INSTANTIATE_TEST_SUITE_P(Bits, CodebookOfBits, testing::Range(kMinBits, kMaxBits + 1),
                         testing::PrintToStringParamName());
INSTANTIATE_TEST_SUITE_P(Bits, LloydMaxOfBits, testing::Range(kMinBits, kMaxBits), testing::PrintToStringParamName());

TEST_P(LloydMaxOfBits, TableIsTheRoundedFixedPoint) {
    const GaussianQuantizer derived = lloyd_max(bits_);
    const double outermost = derived.levels.back();
    const std::vector<int> levels = positive_levels(book_);
    ASSERT_EQ(levels.size(), derived.levels.size());
    for (size_t i = 0; i < levels.size(); ++i)
        EXPECT_EQ(levels[i], std::lround(derived.levels[i] * kCentroidMax / outermost)) << i;
    EXPECT_NEAR(book_.sigma_units, kCentroidMax / outermost, 1e-4);
}

TEST_P(LloydMaxOfBits, DerivedQuantizerHasTheDistortionOfTheory) {
    EXPECT_NEAR(lloyd_max(bits_).distortion() / lloyd_max_distortion(bits_), 1, 0.005);
}

TEST_P(LloydMaxOfBits, RoundingLosesLittle) {
    const double loss = quantizer_of_tables(book_).distortion() / lloyd_max(bits_).distortion();
    EXPECT_GE(loss, 1 - 1e-9);
    EXPECT_LE(loss, allowed_loss(bits_));
}

TEST_P(CodebookOfBits, LevelsAreSymmetricAndAscend) {
    const int codes = 1 << bits_, first = bits_ == kMaxBits ? 1 : 0;
    EXPECT_EQ(book_.bits, bits_);
    EXPECT_EQ(book_.centroid[codes - 1], kCentroidMax);
    EXPECT_EQ(book_.centroid[first], -kCentroidMax);
    for (int code = first; code < codes; ++code)
        EXPECT_EQ(book_.centroid[code], -book_.centroid[codes - 1 + first - code]) << code;
    for (int code = first + 1; code < codes; ++code) EXPECT_LT(book_.centroid[code - 1], book_.centroid[code]) << code;
}

TEST_P(CodebookOfBits, NearestIsTheNearestLevel) {
    for (int magnitude = 0; magnitude < 128; ++magnitude) {
        int best = 1000;
        for (int code = 1 << (bits_ - 1); code < 1 << bits_; ++code) {
            const int level = book_.centroid[code];
            if (std::abs(level - magnitude) < std::abs(best - magnitude)) best = level;
        }
        EXPECT_EQ(book_.nearest.byte[magnitude], best) << magnitude;
    }
}

TEST_P(CodebookOfBits, CodesAreThoseOfTheNearestLevel) {
    const int mirrored = bits_ == kMaxBits ? 256 : (1 << bits_) - 1;
    for (int magnitude = 0; magnitude < kMagnitudes; ++magnitude) {
        const int code = book_.code.byte[magnitude];
        EXPECT_EQ(book_.centroid[code], book_.nearest.byte[magnitude]) << magnitude;
        EXPECT_EQ(book_.centroid[mirrored - code], -book_.nearest.byte[magnitude]) << magnitude;
    }
}

TEST_P(CodebookOfBits, TablesHaveTheSameBytesInAllForms) {
    for (const MagnitudeTable* table : {&book_.nearest, &book_.code}) {
        uint8_t changed[16] = {};
        for (int magnitude = 0; magnitude < kMagnitudes; ++magnitude) {
            changed[magnitude % 16] ^= table->change[magnitude];
            EXPECT_EQ(changed[magnitude % 16], table->byte[magnitude]) << magnitude;
            if (bits_ > 4) continue;  // more than one change in a run
            const int run = magnitude / kMagnitudeRun;
            const uint8_t stepped = magnitude > table->border[run] ? table->above[run] : table->below[run];
            EXPECT_EQ(stepped, table->byte[magnitude]) << magnitude;
        }
    }
}

TEST(Codebook, EightBitsAreTheInt8Grid) {
    for (int code = 1; code < 256; ++code) EXPECT_EQ(codebook(8).centroid[code], code - 128);
}

}  // namespace
}  // namespace tq::test
