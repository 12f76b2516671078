// Presets by layer: "k4ctv4t+0:k8cv8".
#include "turboquant/format/layer_presets.h"

#include <gtest/gtest.h>

namespace tq::test {
namespace {

std::string preset_of(const char* text, int layer) {
    return LayerPresets::parse(text)->of(layer).name();
}

TEST(LayerPresets, OnePresetIsForAllLayers) {
    const LayerPresets presets = LayerPresets::parse("k4ctv4t").value();
    EXPECT_TRUE(presets.is_uniform());
    for (int layer : {0, 1, kMaxLayer}) EXPECT_EQ(presets.of(layer).name(), "k4ctv4t");
    EXPECT_EQ(presets.name(), "k4ctv4t");
}

TEST(LayerPresets, OthersHoldForTheirLayers) {
    constexpr const char* kText = "4+0:lossless+22-23:k5ctv5t";
    EXPECT_EQ(preset_of(kText, 0), "k8cv8");
    EXPECT_EQ(preset_of(kText, 1), "k4v4");
    EXPECT_EQ(preset_of(kText, 21), "k4v4");
    EXPECT_EQ(preset_of(kText, 22), "k5ctv5t");
    EXPECT_EQ(preset_of(kText, 23), "k5ctv5t");
    EXPECT_EQ(preset_of(kText, 24), "k4v4");
    EXPECT_FALSE(LayerPresets::parse(kText)->is_uniform());
}

TEST(LayerPresets, TheLastOfSeveralHolds) {
    EXPECT_EQ(preset_of("k4v4+0-9:k8v8+5:k2v2", 5), "k2v2");
    EXPECT_EQ(preset_of("k4v4+5:k2v2+0-9:k8v8", 5), "k8v8");
}

TEST(LayerPresets, NamesParseToTheSame) {
    const std::string name = LayerPresets::parse("small+3:5.5+7-7:fast+10-12:8")->name();
    EXPECT_EQ(name, "k3ctv3t+3:k5v6+7:k4cv4+10-12:k8v8+sink1+recent15");
    EXPECT_EQ(LayerPresets::parse(name)->name(), name);
}

TEST(LayerPresets, ExactCellsHoldForAllLayers) {
    const LayerPresets presets = LayerPresets::parse("k2cv2+sink4+0:k8v8+recent64").value();
    EXPECT_EQ(presets.exact().n_sink, 4);
    EXPECT_EQ(presets.exact().n_recent, 64);
    EXPECT_EQ(presets.exact().n_per_query(), 68);
    EXPECT_EQ(presets.of(0).name(), "k8v8");
    EXPECT_EQ(presets.name(), "k2cv2+0:k8v8+sink4+recent64");
    EXPECT_EQ(LayerPresets::parse(presets.name())->name(), presets.name());
    EXPECT_EQ(LayerPresets::parse("k4v4+recent64+recent0")->name(), "k4v4") << "the last of several holds";
    EXPECT_FALSE(LayerPresets::parse("k4v4+sink0")->exact().any());
    EXPECT_EQ(LayerPresets::parse("fast")->name(), "k4cv4+sink1+recent15");
    EXPECT_EQ(LayerPresets::parse("fast+recent63")->name(), "k4cv4+sink1+recent63");
    EXPECT_EQ(LayerPresets::parse("k4v4+0:fast")->name(), "k4v4+0:k4cv4") << "of a layer a name stands for its codes";
}

TEST(LayerPresets, OtherTextsAreRefused) {
    for (const char* text :
         {"k4v4+", "k4v4+0", "k4v4+:k8v8", "k4v4+-1:k8v8", "k4v4+x:k8v8", "k4v4+3-2:k8v8", "k4v4+1-:k8v8",
          "k4v4+10000:k8v8", "k4v4+99999999999999999999:k8v8", "k4v4+1 :k8v8", "k4v4+0:k8v8+", "k4v4+sink",
          "k4v4+sink-1", "k4v4+recent65537", "k4v4+recent 4", "k4v4+last4"}) {
        const auto presets = LayerPresets::parse(text);
        ASSERT_FALSE(presets.ok()) << text;
        EXPECT_EQ(presets.status().error(), Error::kInvalidArgument);
        EXPECT_NE(presets.status().message().find("+FIRST-LAST:PRESET"), std::string::npos)
            << presets.status().message();
    }
    for (const char* text : {"", "+0:k8v8", "k9v9+0:k8v8", "k4v4+0:k9v9", "k4v4+0:"}) {
        const auto presets = LayerPresets::parse(text);
        ASSERT_FALSE(presets.ok()) << text;
        EXPECT_NE(presets.status().message().find("k<K bits>v<V bits>"), std::string::npos)
            << presets.status().message();
    }
}

}  // namespace
}  // namespace tq::test
