// Trellis codes: levels as the definition in format/trellis.h has them, and paths that no other path beats.
#include "turboquant/format/trellis.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/packed_rows.h"
#include "tests/support/random.h"
#include "tests/support/vectors.h"
#include "turboquant/cpu/codec/kernels.h"
#include "turboquant/format/scale.h"

namespace tq::test {
namespace {

class Trellis : public testing::TestWithParam<int> {
  protected:
    const int bits_ = GetParam();
    const TrellisBook& book_ = trellis_book(bits_);

    std::vector<int> sorted_levels() const {
        std::vector<int> levels(book_.level.begin(), book_.level.begin() + (2 << bits_));
        std::sort(levels.begin(), levels.end());
        return levels;
    }
};
INSTANTIATE_TEST_SUITE_P(Widths, Trellis, testing::Range(kMinTrellisBits, kMaxTrellisBits + 1));

TEST_P(Trellis, LevelsAreDistinctAndSymmetricAndDealtInTurn) {
    const std::vector<int> levels = sorted_levels();
    for (size_t i = 0; i < levels.size(); ++i) {
        EXPECT_EQ(levels[i], -levels[levels.size() - 1 - i]);
        if (i > 0) {
            EXPECT_LT(levels[i - 1], levels[i]);
        }
        EXPECT_EQ(book_.level_at(static_cast<int>(i) % 4, static_cast<int>(i) / 4), levels[i]);
    }
    EXPECT_EQ(levels.back(), 127);
}

// The definition, from the path bits of three values before, for random codes.
TEST_P(Trellis, DecodingFollowsTheDefinition) {
    Random random(1);
    const std::vector<int> levels = sorted_levels();
    std::vector<int> u(3);  // path bits of all values so far, oldest first
    int state = 0;
    for (int step = 0; step < 4; ++step) {
        uint8_t codes[kStepDims];
        int8_t decoded[kStepDims];
        for (uint8_t& c : codes) c = static_cast<uint8_t>(random.below(1 << bits_));
        state = follow_trellis(book_, state, codes, decoded);
        for (int dim = 0; dim < kStepDims; ++dim) {
            const int inner = codes[dim] % (1 << (bits_ - 1));
            u.push_back(codes[dim] >> (bits_ - 1));
            const auto ago = [&](size_t n) { return u[u.size() - 1 - n]; };
            const int w = ago(0) ^ ago(1) ^ ago(3), s = ago(2);
            ASSERT_EQ(decoded[dim], levels[static_cast<size_t>(4 * inner + 2 * w + s)])
                << "step " << step << " dim " << dim;
        }
    }
}

// Least squared error of any path at this scale, by trying both path bits in every state.
double least_error(const TrellisBook& book, const std::vector<float>& chain, double scale) {
    std::vector<double> cost(kTrellisStates, INFINITY);
    cost[0] = 0;
    for (float y : chain) {
        std::vector<double> next(kTrellisStates, INFINITY);
        for (int state = 0; state < kTrellisStates; ++state)
            for (int u : {0, 1}) {
                double best = INFINITY;
                for (int inner = 0; inner < 1 << (book.bits - 1); ++inner) {
                    const double error = y - scale * book.level_at(trellis_subset(state, u), inner);
                    best = std::min(best, error * error);
                }
                double& there = next[static_cast<size_t>(next_trellis_state(state, u))];
                there = std::min(there, cost[static_cast<size_t>(state)] + best);
            }
        cost = next;
    }
    return *std::min_element(cost.begin(), cost.end());
}

struct Group {
    std::vector<float> values;
    double error;
    int scale_code;
};

// A group of values encoded and decoded by the library.
Group encode_group(const TrellisBook& book, int n, Isa isa, Random& random) {
    std::vector<uint8_t> codes(static_cast<size_t>(n));
    uint8_t scale_code = 0;
    Group group{random.normals(n), 0, 0};
    codec_kernels(isa).encode_trellis(book, group.values.data(), n, n, codes.data(), &scale_code);
    group.scale_code = scale_code;
    int state = 0;
    for (int step = 0; step < n; step += kStepDims) {
        int8_t levels[kStepDims];
        state = follow_trellis(book, state, codes.data() + step, levels);
        for (int i = 0; i < kStepDims; ++i) {
            const double error =
                group.values[static_cast<size_t>(step + i)] - double{scale_from_code(scale_code)} * levels[i];
            group.error += error * error;
        }
    }
    return group;
}

// Values are rounded to the codebook's units before the nearest level is looked up, which costs up to 5 % at 5 bits.
// Within that, the path is the best, and no neighbouring scale has a better one.
TEST_P(Trellis, NoOtherPathOrScaleIsBetter) {
    for (Isa isa : available_isas())
        for (int n = kStepDims; n <= group_dims(Side::kValue); n += kStepDims) {
            Random random(static_cast<uint64_t>(n));
            for (int i = 0; i < 40; ++i) {
                const Group group = encode_group(book_, n, isa, random);
                for (int change : {-2, -1, 0, 1, 2}) {
                    const double scale = scale_from_code(static_cast<uint8_t>(group.scale_code + change));
                    EXPECT_LE(group.error, 1.05 * least_error(book_, group.values, scale)) << isa_name(isa) << " " << n;
                }
            }
        }
}

// Distance from the rate-distortion bound 2^(-2 bits), everything counted, of Gaussian rows: what section 6 of the
// literature calls 8 states (1.3 dB better than Lloyd-Max without a scale search), less what the scale costs.
TEST_P(Trellis, IsNearTheRateDistortionBound) {
    for (Side side : {Side::kKey, Side::kValue}) {
        PackedRows packed({side, trellis(bits_), 128, 2});
        Random random(2);
        double error = 0, energy = 0;
        for (int i = 0; i < 300; ++i) {
            const std::vector<float> row = random.normals(packed.width());
            error += squared_distance(packed.encode_decode(row), row);
            energy += dot(row, row);
        }
        const double bound = -20 * std::log10(2.0) * effective_bits(Preset{bits_, bits_}, side);
        const double distance = 10 * std::log10(error / energy) - bound;
        EXPECT_LT(distance, bits_ == 5 ? 3.5 : 3.3) << side_name(side);
        EXPECT_GT(distance, 1.2) << side_name(side) << ": better than the best trellis codes known";
    }
}

}  // namespace
}  // namespace tq::test
