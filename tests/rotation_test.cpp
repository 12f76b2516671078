// The fast rotation against the matrix that rotation.h documents.
#include "turboquant/format/rotation.h"

#include <bit>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/support/bytes.h"
#include "tests/support/random.h"
#include "tests/support/vectors.h"
#include "turboquant/cpu/codec/kernels.h"

namespace tq::test {
namespace {

constexpr double kRelative = 1e-5;

std::vector<float> rotate(const Rotation& r, const std::vector<float>& x, Isa isa = available_isas().back()) {
    std::vector<float> y(x.size());
    codec_kernels(isa).rotate_row(r, x.data(), y.data());
    return y;
}

std::vector<float> rotate_inverse(const Rotation& r, const std::vector<float>& y, Isa isa = available_isas().back()) {
    std::vector<float> x(y.size());
    codec_kernels(isa).rotate_inverse(r, y.data(), x.data());
    return x;
}

// R = 2^-a M S2 M S1, M = H (x) Q, as dense products in double.
class DenseRotation {
  public:
    explicit DenseRotation(int head_dim) : n_(head_dim), run_(1 << std::countr_zero(static_cast<unsigned>(head_dim))) {}

    std::vector<double> apply(const std::vector<float>& x) const {
        std::vector<double> y(x.begin(), x.end());
        for (int round = 0; round < 2; ++round) {
            for (int i = 0; i < n_; ++i) y[i] *= rotation_sign_is_negative(n_, round, i) ? -1 : 1;
            y = multiply_m(y);
        }
        for (double& v : y) v /= run_;
        return y;
    }

  private:
    double m(int row, int column) const {
        const int runs = n_ / run_;
        const double q = (row / run_ == column / run_ ? 1.0 : 0.0) - 2.0 / runs * (runs > 1);
        const double h = std::popcount(static_cast<unsigned>(row % run_ & column % run_)) % 2 ? -1 : 1;
        return h * q;
    }
    std::vector<double> multiply_m(const std::vector<double>& x) const {
        std::vector<double> y(n_, 0.0);
        for (int row = 0; row < n_; ++row)
            for (int column = 0; column < n_; ++column) y[row] += m(row, column) * x[column];
        return y;
    }

    int n_, run_;
};

class RotationOfHeadDim : public testing::TestWithParam<int> {
  protected:
    const int head_dim_ = GetParam();
    const Rotation rotation_ = Rotation::create(head_dim_).value();
    Random random_{static_cast<uint64_t>(head_dim_)};
};
INSTANTIATE_TEST_SUITE_P(All, RotationOfHeadDim, testing::Range(16, 513, 16), testing::PrintToStringParamName());

TEST_P(RotationOfHeadDim, IsTheDocumentedMatrix) {
    const std::vector<float> x = random_.normals(head_dim_);
    const std::vector<float> y = rotate(rotation_, x);
    const std::vector<double> expected = DenseRotation(head_dim_).apply(x);
    for (int i = 0; i < head_dim_; ++i) EXPECT_NEAR(y[i], expected[i], kRelative) << i;
}

TEST_P(RotationOfHeadDim, PreservesNormsAndInnerProducts) {
    const std::vector<float> a = random_.normals(head_dim_), b = random_.normals(head_dim_);
    const std::vector<float> ra = rotate(rotation_, a), rb = rotate(rotation_, b);
    EXPECT_NEAR(norm(ra) / norm(a), 1, kRelative);
    EXPECT_NEAR(dot(ra, rb), dot(a, b), kRelative * norm(a) * norm(b));
}

TEST_P(RotationOfHeadDim, InverseUndoesIt) {
    const std::vector<float> x = random_.normals(head_dim_);
    EXPECT_LE(distance(rotate_inverse(rotation_, rotate(rotation_, x)), x), kRelative * norm(x));
    EXPECT_LE(distance(rotate(rotation_, rotate_inverse(rotation_, x)), x), kRelative * norm(x));
}

TEST_P(RotationOfHeadDim, WorksInPlace) {
    std::vector<float> x = random_.normals(head_dim_);
    const std::vector<float> forward = rotate(rotation_, x), backward = rotate_inverse(rotation_, forward);
    const CodecKernels& kernels = codec_kernels(available_isas().back());
    kernels.rotate_row(rotation_, x.data(), x.data());
    EXPECT_TRUE(same_bits(x, forward));
    kernels.rotate_inverse(rotation_, x.data(), x.data());
    EXPECT_TRUE(same_bits(x, backward));
}

TEST_P(RotationOfHeadDim, AllIsasGiveTheSameBits) {
    const std::vector<float> x = random_.normals(head_dim_);
    for (Isa isa : available_isas()) {
        EXPECT_TRUE(same_bits(rotate(rotation_, x, isa), rotate(rotation_, x))) << isa_name(isa);
        EXPECT_TRUE(same_bits(rotate_inverse(rotation_, x, isa), rotate_inverse(rotation_, x))) << isa_name(isa);
    }
}

// One value becomes head_dim values of similar size, not two or three large ones. A Gaussian has kurtosis 3; a single
// round would give 1, no rotation head_dim. The runs' mixing weakens with their number m: head dims in use have m <= 7.
TEST_P(RotationOfHeadDim, SpreadsASingleValue) {
    double largest = 0, kurtosis = 0;
    for (int i = 0; i < head_dim_; ++i) {
        std::vector<float> x(head_dim_);
        x[i] = 1;
        for (float v : rotate(rotation_, x)) {
            largest = std::max(largest, std::abs(static_cast<double>(v)));
            kurtosis += std::pow(static_cast<double>(v), 4);
        }
    }
    const bool well_mixed = head_dim_ / rotation_.run <= 7;
    EXPECT_GE(kurtosis, 1.9);
    EXPECT_LE(kurtosis, well_mixed ? 4.0 : 0.12 * head_dim_);
    EXPECT_LE(largest * std::sqrt(head_dim_), well_mixed ? 5.0 : 15.0);
}

// The signs are the format: changing one makes every stored cache unreadable.
TEST(Rotation, SignsOfHeadDim64AreGolden) {
    const Rotation r = Rotation::create(64).value();
    std::string signs[2];
    for (int i = 0; i < 16; ++i) {
        signs[0] += r.first[i] < 0 ? '-' : '+';
        signs[1] += r.second[i] < 0 ? '-' : '+';
    }
    EXPECT_EQ(signs[0], "+-+---+++++++---");
    EXPECT_EQ(signs[1], "+-+-+--++-+-+-+-");
}

TEST(Rotation, SignsAreBalancedAndDifferBetweenRounds) {
    for (int head_dim = 64; head_dim <= kMaxHeadDim; head_dim += 16) {
        const Rotation r = Rotation::create(head_dim).value();
        EXPECT_NE(r.first, r.second);
        EXPECT_EQ(r.first, r.first_inverse);
        for (const std::vector<float>* signs : {&r.first, &r.second}) {
            double sum = 0;
            for (float s : *signs) sum += s;
            EXPECT_LE(std::abs(sum), 4 * std::sqrt(head_dim)) << head_dim;
        }
    }
}

TEST(Rotation, RefusesOtherHeadDims) {
    for (int head_dim : {-16, 0, 8, 15, 24, 513, 528}) {
        const auto rotation = Rotation::create(head_dim);
        ASSERT_FALSE(rotation.ok()) << head_dim;
        EXPECT_EQ(rotation.status().error(), Error::kUnsupported);
        EXPECT_NE(rotation.status().message().find(std::to_string(head_dim)), std::string::npos);
    }
}

}  // namespace
}  // namespace tq::test
