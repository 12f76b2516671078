// Channel scales: what they should be, and that rows, queries and outputs are what they would be without.
#include "turboquant/format/channel_scales.h"

#include <algorithm>
#include <limits>

#include <gtest/gtest.h>

#include "tests/support/packed_rows.h"
#include "tests/support/random.h"
#include "tests/support/vectors.h"
#include "turboquant/base/half.h"
#include "turboquant/cache/kv_cache.h"

namespace tq::test {
namespace {

// ---- what they should be

std::vector<double> random_energies(int n, Random& random) {
    std::vector<double> energies;
    for (int i = 0; i < n; ++i) energies.push_back(std::exp2(8 * random.uniform()));
    return energies;
}

double cost(const std::vector<double>& energy, const std::vector<double>& weight, const std::vector<float>& scale) {
    double stored = 0, later = 0;
    for (size_t i = 0; i < energy.size(); ++i) {
        stored += energy[i] * scale[i] * scale[i];
        later += weight[i] / (double{scale[i]} * scale[i]);
    }
    return stored * later;
}

TEST(BalancedScales, CostLeast) {
    Random random(1);
    for (int n : {1, 16, 64}) {
        const std::vector<double> energy = random_energies(n, random), weight = random_energies(n, random);
        const std::vector<float> best = balanced_scales(energy, weight);
        double least = 0;
        for (int i = 0; i < n; ++i) least += std::sqrt(energy[i] * weight[i]);
        EXPECT_NEAR(cost(energy, weight, best) / (least * least), 1, 1e-6);
        for (int i = 0; i < n; ++i) {
            for (float factor : {0.9f, 1.1f}) {
                std::vector<float> other = best;
                other[i] *= factor;
                EXPECT_GE(cost(energy, weight, other), cost(energy, weight, best) * (n == 1 ? 1 - 1e-6 : 1)) << i;
            }
        }
    }
}

TEST(BalancedScales, KeepTheEnergy) {
    Random random(2);
    const std::vector<double> energy = random_energies(64, random), weight = random_energies(64, random);
    const std::vector<float> scale = balanced_scales(energy, weight);
    double before = 0, after = 0;
    for (size_t i = 0; i < energy.size(); ++i) {
        before += energy[i];
        after += energy[i] * scale[i] * scale[i];
    }
    EXPECT_NEAR(after / before, 1, 1e-6);
}

TEST(BalancedScales, OfUnusedChannelsAreOne) {
    EXPECT_EQ(balanced_scales(std::vector<double>{0, 5, 5}, std::vector<double>{3, 0, 7}),
              (std::vector<float>{1, 1, 1}));
}

TEST(BalancedScales, StayInTheirLimits) {
    const std::vector<float> scale =
        balanced_scales(std::vector<double>{1e-30, 1, 1e30}, std::vector<double>{1e30, 1, 1e-30});
    for (float s : scale) {
        EXPECT_GE(s, kMinChannelScale);
        EXPECT_LE(s, kMaxChannelScale);
    }
}

TEST(ChannelScalesName, IsTheFormat) {
    EXPECT_EQ(channel_scales_name(3, Side::kKey, false), "blk.3.attn_k.channel_scale");
    EXPECT_EQ(channel_scales_name(12, Side::kKey, true), "blk.12.attn_k_centered.channel_scale");
    EXPECT_EQ(channel_scales_name(0, Side::kValue, false), "blk.0.attn_v.channel_scale");
}

// ---- rotations

class ScaledRotation : public testing::TestWithParam<int> {
  protected:
    const int head_dim_ = GetParam();
    Random random_{static_cast<uint64_t>(head_dim_)};
    const std::vector<float> scales_ = random_scales(head_dim_, random_);
    const Rotation rotation_ = Rotation::create(head_dim_, scales_).value();
    const CodecKernels& kernels_ = codec_kernels(available_isas().back());

    using Kernel = void (*)(const Rotation&, const float*, float*);
    std::vector<float> apply(Kernel kernel, const std::vector<float>& x) const {
        std::vector<float> y(x.size());
        kernel(rotation_, x.data(), y.data());
        return y;
    }
};
INSTANTIATE_TEST_SUITE_P(HeadDims, ScaledRotation, testing::Values(16, 64, 80, 96, 112, 128, 256, 512),
                         testing::PrintToStringParamName());

TEST_P(ScaledRotation, IsTheRotationOfTheScaledRow) {
    const std::vector<float> x = random_.normals(head_dim_);
    std::vector<float> scaled = x, expected(x.size());
    for (int i = 0; i < head_dim_; ++i) scaled[i] *= scales_[i];
    kernels_.rotate_row(Rotation::create(head_dim_).value(), scaled.data(), expected.data());
    EXPECT_LE(distance(apply(kernels_.rotate_row, x), expected), 1e-6 * norm(expected));
}

TEST_P(ScaledRotation, QueriesMeetKeysAsBefore) {
    const std::vector<float> k = random_.normals(head_dim_), q = random_.normals(head_dim_);
    const std::vector<float> rk = apply(kernels_.rotate_row, k), rq = apply(kernels_.rotate_query, q);
    EXPECT_NEAR(dot(rk, rq), dot(k, q), 1e-6 * norm(rk) * norm(rq));
}

TEST_P(ScaledRotation, InverseUndoesIt) {
    const std::vector<float> x = random_.normals(head_dim_);
    EXPECT_LE(distance(apply(kernels_.rotate_inverse, apply(kernels_.rotate_row, x)), x), 1e-5 * norm(x));
}

TEST(ScaledRotation, OtherScalesAreRefused) {
    const auto expect_refused = [](std::vector<float> scales, const char* reason) {
        const Result<Rotation> rotation = Rotation::create(16, scales);
        ASSERT_FALSE(rotation.ok()) << reason;
        EXPECT_EQ(rotation.status().error(), Error::kInvalidArgument);
        EXPECT_NE(rotation.status().message().find(reason), std::string::npos) << rotation.status().message();
    };
    expect_refused(std::vector<float>(15, 1.0f), "15");
    for (float bad : {0.0f, -1.0f, 0.015f, 64.1f, std::numeric_limits<float>::infinity(),
                      std::numeric_limits<float>::quiet_NaN()}) {
        std::vector<float> scales(16, 1.0f);
        scales[7] = bad;
        expect_refused(scales, "channel 7");
    }
}

// ---- rows

class ScaledRows : public testing::TestWithParam<PackedShape> {
  protected:
    const PackedShape shape_ = GetParam();
    Random random_{5};
    const std::vector<float> scales_ = random_scales(int64_t{shape_.n_head} * shape_.head_dim, random_);
};

std::vector<PackedShape> shapes() {
    std::vector<PackedShape> shapes;
    for (Side side : {Side::kKey, Side::kValue}) {
        for (const Codes& coding : all_codings()) {
            for (int head_dim : {64, 80, 128}) shapes.push_back({side, coding, head_dim, 3, 200});
        }
    }
    for (Codes coding : {Codes(4), trellis(4), Codes(8)}) shapes.push_back({Side::kKey, centered(coding), 80, 3, 200});
    return shapes;
}
INSTANTIATE_TEST_SUITE_P(Shapes, ScaledRows, testing::ValuesIn(shapes()));

// As without scales, the code errs by a share of the scaled row.
TEST_P(ScaledRows, ErrAsTheScaledRowsWouldWithout) {
    PackedRows plain(shape_), scaled(shape_, available_isas().back(), scales_);
    double plain_error = 0, scaled_error = 0;
    for (int64_t cell = 0; cell < shape_.n_cells; ++cell) {
        const std::vector<float> row = random_.normals(plain.width());
        std::vector<float> multiplied = row;
        for (size_t i = 0; i < row.size(); ++i) multiplied[i] *= scales_[i];
        plain.encode(multiplied, cell);
        scaled.encode(row, cell);
        std::vector<float> decoded = scaled.decode(cell);
        for (size_t i = 0; i < row.size(); ++i) decoded[i] *= scales_[i];
        plain_error += std::pow(distance(plain.decode(cell), multiplied), 2);
        scaled_error += std::pow(distance(decoded, multiplied), 2);
    }
    EXPECT_NEAR(scaled_error / plain_error, 1, 0.01);
}

TEST_P(ScaledRows, EncodingWhatWasDecodedGivesTheSameBytesAlsoThroughHalves) {
    PackedRows packed(shape_, available_isas().back(), scales_);
    for (int64_t cell = 0; cell < 100; ++cell) packed.encode(random_.normals(packed.width()), cell);
    const Bytes before = packed.bytes;
    for (int64_t cell = 0; cell < 100; ++cell) {
        std::vector<float> row = packed.decode(cell);
        for (float& x : row) x = half_to_float(float_to_half(x));
        packed.encode(row, cell);
    }
    EXPECT_EQ(packed.bytes, before);
}

TEST_P(ScaledRows, AllIsasGiveTheSameBits) {
    const std::vector<float> row = random_.normals(int64_t{shape_.n_head} * shape_.head_dim);
    PackedRows expected(shape_, Isa::kScalar, scales_);
    expected.encode(row);
    for (Isa isa : available_isas()) {
        PackedRows packed(shape_, isa, scales_);
        packed.encode(row);
        EXPECT_EQ(packed.bytes, expected.bytes) << isa_name(isa);
        EXPECT_TRUE(same_bits(packed.decode(), expected.decode())) << isa_name(isa);
    }
}

TEST(ScaledRows, ScalesOfAnotherWidthAreRefused) {
    const RowFormat format = RowFormat::create(Side::kKey, 4, 128).value();
    const std::vector<float> scales(64, 1.0f);
    const Result<RowCodec> codec = RowCodec::create(format, 64, Isa::kScalar, scales);
    ASSERT_FALSE(codec.ok());
    EXPECT_EQ(codec.status().error(), Error::kInvalidArgument);
}

// Keys with a few large channels that queries hardly read: what the scales are for.
TEST(ScaledRows, LogitsErrLessWithBalancedScales) {
    constexpr int kDim = 64, kRows = 20000;
    Random random(6);
    std::vector<double> key_energy, query_energy;
    for (int i = 0; i < kDim; ++i) {
        key_energy.push_back(i % 16 == 0 ? 100 : 1);
        query_energy.push_back(i % 16 == 0 ? 0.01 : 1);
    }
    const auto draw = [&](const std::vector<double>& energy) {
        std::vector<float> x = random.normals(kDim);
        for (int i = 0; i < kDim; ++i) x[i] *= static_cast<float>(std::sqrt(energy[i]));
        return x;
    };
    const PackedShape shape{Side::kKey, 4, kDim, 1, 1};
    PackedRows plain(shape), scaled(shape, available_isas().back(), balanced_scales(key_energy, query_energy));
    double plain_error = 0, scaled_error = 0;
    for (int i = 0; i < kRows; ++i) {
        const std::vector<float> k = draw(key_energy), q = draw(query_energy);
        plain_error += std::pow(dot(q, plain.encode_decode(k)) - dot(q, k), 2);
        scaled_error += std::pow(dot(q, scaled.encode_decode(k)) - dot(q, k), 2);
    }
    const double gain = cost(key_energy, query_energy, std::vector<float>(kDim, 1.0f)) /
                        cost(key_energy, query_energy, balanced_scales(key_energy, query_energy));
    EXPECT_NEAR(plain_error / scaled_error / gain, 1, 0.05);
}

TEST(ScaledCache, ReadsWhatWasWritten) {
    Random random(7);
    KvCacheParams params{Preset::parse("k8cv8").value(), 64, 80, 2, 300};
    params.key_scales = random_scales(128, random);
    params.value_scales = random_scales(160, random);
    Result<KvCache> created = KvCache::create(params, cpu_engine(available_isas().back()));
    KvCache& cache = created.value();
    const std::vector<float> k = random.normals(128 * 200), v = random.normals(160 * 200);
    ASSERT_TRUE(cache.append(0, 200, k.data(), v.data()).ok());
    std::vector<float> k2(k.size()), v2(v.size());
    ASSERT_TRUE(cache.read(0, 0, 200, k2.data(), v2.data()).ok());
    EXPECT_LE(distance(k, k2), 0.05 * norm(k));
    EXPECT_LE(distance(v, v2), 0.05 * norm(v));
    params.key_scales.pop_back();
    EXPECT_EQ(KvCache::create(params, cpu_engine(available_isas().back())).status().error(), Error::kInvalidArgument);
}

}  // namespace
}  // namespace tq::test
