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

TEST(LayerPresets, SinksAndWindowMayBeSpeltAsInTheWords) {
    EXPECT_EQ(LayerPresets::parse("k4v4+sinks=4+window=60+reserve=9")->name(), "k4v4+sink4+recent60+reserve9");
    EXPECT_EQ(LayerPresets::parse("fast+window=63")->name(), LayerPresets::parse("fast+recent63")->name());
}

// ---- words

TEST(PresetWords, SayHowKeysAndValuesAreCoded) {
    const std::pair<const char*, const char*> kCases[] = {
        {"k4v4", "k4v4"},
        {"3.5", "k3v4"},
        {"k4cv4", "k4v4 centered"},
        {"k4tv3t", "k4v3 trellis"},
        {"k4ctv3t", "k4v3 centered trellis"},
        {"k4ctv3", "k4 centered trellis, v3"},
        {"k4cv3t", "k4 centered, v3 trellis"},
        {"k8v3t", "k8, v3 trellis"},
        {"k3tv8", "k3 trellis, v8"},
        {"fast", "k4v4 centered, sinks=1 window=15"},
        {"k4ctv3+sink1+recent15", "k4 centered trellis, v3, sinks=1 window=15"},
        {"k2cv2+sink4", "k2v2 centered, sinks=4"},
        {"k2cv2+recent60+reserve8", "k2v2 centered, window=60 reserve=8"},
        {"k2cv2+reserve8", "k2v2 centered"},
        {"k4v4+0:k8cv8+22-23:k5ctv5+sink4",
         "k4v4, sinks=4; layer 0: k8v8 centered; layers 22-23: k5 centered trellis, v5"},
    };
    for (const auto& [text, words] : kCases) EXPECT_EQ(LayerPresets::parse(text)->describe(), words) << text;
}

// The codes that words stand for, read by the rule of docs/presets.md.
std::string codes_of_words(const std::string& words) {
    const auto has = [](const std::string& text, const char* word) { return text.find(word) != std::string::npos; };
    const size_t comma = words.find(", ");
    const bool apart = comma != std::string::npos;
    const std::string value = apart ? words.substr(comma + 2) : words.substr(2);
    const std::string key = apart ? words.substr(0, comma) : words;
    return key.substr(0, 2) + (has(key, " centered") ? "c" : "") + (has(key, " trellis") ? "t" : "") +
           value.substr(0, 2) + (has(value, " trellis") ? "t" : "");
}

TEST(PresetWords, StandForOnePresetAlone) {
    int n = 0;
    for (char k = '2'; k <= '8'; ++k)
        for (char v = '2'; v <= '8'; ++v)
            for (const char* key_codes : {"", "c", "t", "ct"})
                for (const char* value_codes : {"", "t"}) {
                    const auto preset = Preset::parse(std::string("k") + k + key_codes + "v" + v + value_codes);
                    if (!preset.ok()) continue;
                    EXPECT_EQ(codes_of_words(preset->describe()), preset->name()) << preset->describe();
                    ++n;
                }
    EXPECT_EQ(n, 20 * 10) << "keys: 7 widths, centered or not, and 3 of trellis codes; values: 7 and 3";
}

TEST(PresetWords, ATitleBeginsWithWhatAUserCanType) {
    const std::pair<const char*, const char*> kTitles[] = {
        {"fast", "fast (k4v4 centered, sinks=1 window=15)"},
        {"k4cv4+sink1+recent15", "fast (k4v4 centered, sinks=1 window=15)"},
        {"lossless", "lossless (k8v8 centered)"},
        {"k4v4", "k4v4"},
        {"4", "k4v4"},
        {"k4cv4", "k4cv4 (k4v4 centered)"},
        {"fast+recent63", "k4cv4+sink1+recent63 (k4v4 centered, sinks=1 window=63)"},
        {"fast+reserve64", "k4cv4+sink1+recent15+reserve64 (k4v4 centered, sinks=1 window=15 reserve=64)"},
        {"lossless+3:k4v4", "k8cv8+3:k4v4 (k8v8 centered; layer 3: k4v4)"},
    };
    for (const auto& [text, title] : kTitles) {
        const LayerPresets presets = LayerPresets::parse(text).value();
        EXPECT_EQ(presets.title(), title);
        EXPECT_EQ(LayerPresets::parse(presets.label())->name(), presets.name()) << text;
    }
    for (const char* name : kPresetNames) EXPECT_EQ(LayerPresets::parse(name)->label(), name);
}

TEST(LayerPresets, OtherTextsAreRefused) {
    for (const char* text : {"k4v4+",        "k4v4+0",           "k4v4+:k8v8",
                             "k4v4+-1:k8v8", "k4v4+x:k8v8",      "k4v4+3-2:k8v8",
                             "k4v4+1-:k8v8", "k4v4+10000:k8v8",  "k4v4+99999999999999999999:k8v8",
                             "k4v4+1 :k8v8", "k4v4+0:k8v8+",     "k4v4+sink",
                             "k4v4+sink-1",  "k4v4+recent65537", "k4v4+recent 4",
                             "k4v4+last4",   "k4v4+sink=4",      "k4v4+sinks4",
                             "k4v4+window=", "k4v4+window=65537"}) {
        const auto presets = LayerPresets::parse(text);
        ASSERT_FALSE(presets.ok()) << text;
        EXPECT_EQ(presets.status().error(), Error::kInvalidArgument);
        EXPECT_NE(presets.status().message().find("+FIRST-LAST:PRESET"), std::string::npos)
            << presets.status().message();
    }
    for (const char* text : {"", "+0:k8v8", "k9v9+0:k8v8", "k4v4+0:k9v9", "k4v4+0:", "k4v4 centered"}) {
        const auto presets = LayerPresets::parse(text);
        ASSERT_FALSE(presets.ok()) << text;
        EXPECT_NE(presets.status().message().find("k<K bits>v<V bits>"), std::string::npos)
            << presets.status().message();
    }
}

}  // namespace
}  // namespace tq::test
