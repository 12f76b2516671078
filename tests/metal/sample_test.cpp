// The sample kernel through the lanes: right results and no reports, and each planted fault of a launch by its name.
#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "lanes/dispatch.h"

TQ_METAL_LIBRARY(metal_sample);
TQ_METAL_LIBRARY(metal_sample_plain);

namespace tq::lanes {
namespace {

struct SampleParams {
    uint32_t values, per_group;
};

struct Sample {
    SampleParams params{1000, 300};
    std::vector<float> values, weights, sums;
    std::vector<uint8_t> defined;
    bool use_weights = true;

    Sample() {
        for (uint32_t i = 0; i < params.values; ++i) {
            values.push_back(static_cast<float>(i % 37) - 18);
            weights.push_back(static_cast<float>(i % 5));
        }
        sums.assign(8, -1);
        defined.assign(sums.size() * sizeof(float), 0);
    }
    Launch launch() {
        Launch launch;
        launch.kernel = "weighted_sum_float_4";
        launch.buffers = {Launch::read(0, values.data(), values.size() * sizeof(float)),
                          Launch::read(1, weights.data(), weights.size() * sizeof(float)),
                          Launch::write(2, sums.data(), sums.size() * sizeof(float), defined.data()),
                          Launch::read(3, &params, sizeof(params))};
        launch.threadgroup_memory = {{0, 4 * sizeof(float)}};
        launch.constants = {{0, &use_weights, 1}};
        launch.threadgroups({4}, {128});
        return launch;
    }
};

void expect_sums_and_largest_values(const msl_library& library) {
    Sample sample;
    for (const auto& report : run(library, sample.launch())) ADD_FAILURE() << report.text;
    for (uint32_t group = 0; group < 4; ++group) {
        float sum = 0, top = -1e30f;
        for (uint32_t i = group * 300; i < std::min(1000u, group * 300 + 300); ++i) {
            const float value = sample.values[i] * sample.weights[i] * (i & 1 ? 0.5f : 1.0f);
            sum += value;
            top = std::max(top, value);
        }
        EXPECT_EQ(sample.sums[group * 2], sum);
        EXPECT_EQ(sample.sums[group * 2 + 1], top);
    }
}

TEST(MetalSample, SumsAndLargestValues) {
    expect_sums_and_largest_values(msl_library_metal_sample);
}

TEST(MetalSample, IsTheSameWithoutChecks) {
    expect_sums_and_largest_values(msl_library_metal_sample_plain);
}

TEST(MetalSample, ShortBufferIsReadOutOfBounds) {
    Sample sample;
    Launch launch = sample.launch();
    launch.buffers[0].bytes -= 4;
    const auto reports = run(msl_library_metal_sample, launch);
    ASSERT_FALSE(reports.empty());
    EXPECT_EQ(name(reports[0].fault), std::string("out-of-bounds read")) << reports[0].text;
    EXPECT_NE(reports[0].text.find("values (buffer 0)"), std::string::npos) << reports[0].text;
    EXPECT_NE(reports[0].text.find("+3996"), std::string::npos) << reports[0].text;
}

}  // namespace
}  // namespace tq::lanes
