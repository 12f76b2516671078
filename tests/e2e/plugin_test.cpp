// The plugin behind ggml's own API, no model: registration, the packed buffer, and each op against ggml's CPU backend.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "support/attention_graph.h"
#include "support/host.h"

namespace tq::e2e {
namespace {

// Against dense attention on the same decoded rows only the 8-bit queries and probabilities are left to differ.
constexpr double kAttentionBound = 0.02;

// Says how far attention on the packed cache is from ggml's attention on the same cache decoded.
double error_against_cpu(const Shape& shape) {
    Layer packed(plugin_backend(), shape), dense(cpu_backend(), shape);
    packed.fill(1);
    dense.write(dense.keys(), packed.read(packed.keys()));
    dense.write(dense.values(), packed.read(packed.values()));
    const Floats expected = dense.attend(7);
    const Floats actual = packed.attend(7);
    if (actual.size() != expected.size() || actual.empty()) return INFINITY;
    // head_dim is known now, and rows stored before have been encoded again: decode once more
    dense.write(dense.keys(), packed.read(packed.keys()));
    dense.write(dense.values(), packed.read(packed.values()));
    return relative_error(packed.attend(7), dense.attend(7));
}

// ---- registration ---------------------------------------------------------------------------------------------------

TEST(Registration, DeviceNamesPresetBitsIsaAndAttention) {
    const ChildResult child = in_child({"TURBOQUANT_KV=k5v3", "TURBOQUANT_ISA=scalar"}, [] {
        ggml_backend_dev_t device = load_plugin();
        if (!device) return false;
        const std::string text = ggml_backend_dev_description(device);
        ggml_log_callback log;
        void* data;
        ggml_log_get(&log, &data);
        log(GGML_LOG_LEVEL_INFO, (std::string(ggml_backend_dev_name(device)) + "|" + text).c_str(), data);
        return ggml_backend_dev_by_name("TurboQuant") == device &&
               ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_IGPU;
    });
    EXPECT_EQ(child.status, 0);
    EXPECT_NE(
        child.log.find(
            "TurboQuant|TurboQuant KV cache: k5v3, 4.19 bits per value (K 5.250, V 3.125), scalar, fused attention"),
        std::string::npos)
        << child.log;
}

TEST(Registration, InvalidPresetIsRefusedWithTheValidOnes) {
    for (const char* preset : {"TURBOQUANT_KV=k9v4", "TURBOQUANT_KV=q4_0", "TURBOQUANT_KV=8.5"}) {
        const ChildResult child = in_child({preset}, [] { return load_plugin() == nullptr; });
        EXPECT_EQ(child.status, 0) << preset;
        EXPECT_NE(child.log.find("k<K bits>v<V bits>"), std::string::npos) << child.log;
    }
}

TEST(Registration, InvalidIsaIsRefusedWithTheAvailableOnes) {
    const ChildResult child = in_child({"TURBOQUANT_ISA=neon9"}, [] { return load_plugin() == nullptr; });
    EXPECT_EQ(child.status, 0);
    EXPECT_NE(child.log.find("TURBOQUANT_ISA: ISA 'neon9' is not available here; available: scalar"), std::string::npos)
        << child.log;
}

TEST(Registration, InvalidAttentionIsRefusedWithTheValidOnes) {
    for (const std::string attention : {"flash", "Dense"}) {
        const ChildResult child =
            in_child({"TURBOQUANT_ATTENTION=" + attention}, [] { return load_plugin() == nullptr; });
        EXPECT_EQ(child.status, 0) << attention;
        const std::string reason = "'" + attention + "' is not a way to compute attention; valid: fused, dense";
        EXPECT_NE(child.log.find("TURBOQUANT_ATTENTION: " + reason), std::string::npos) << child.log;
    }
}

TEST(Registration, EmptyVariablesAreUnset) {
    const ChildResult child =
        in_child({"TURBOQUANT_KV=", "TURBOQUANT_ATTENTION=", "TURBOQUANT_CALIBRATION=", "TURBOQUANT_ISA="},
                 [] { return load_plugin() != nullptr; });
    EXPECT_EQ(child.status, 0) << child.log;
    EXPECT_NE(child.log.find("KV cache fast (k4v4 centered, sinks=1 window=15), 4.22 bits per value"),
              std::string::npos)
        << child.log;
    EXPECT_NE(child.log.find("fused attention"), std::string::npos) << child.log;
}

TEST(Registration, EveryPresetStoresAndAttends) {
    std::vector<std::string> presets{"2.5",   "3.5",     "4.5",     "5.5",    "6.5",        "7.5",
                                     "k4cv4", "k4ctv4t", "k3ctv3t", "k5tv5t", "k4v4+0:k6v5"};
    for (char k = '2'; k <= '8'; ++k) {
        presets.emplace_back(1, k);
        for (char v = '2'; v <= '8'; ++v) presets.push_back({'k', k, 'v', v});
    }
    for (const std::string& preset : presets) {
        const ChildResult child =
            in_child({"TURBOQUANT_KV=" + preset}, [] { return error_against_cpu(Shape{}) < kAttentionBound; });
        EXPECT_EQ(child.status, 0) << preset << "\n" << child.log;
    }
}

// Attention as TURBOQUANT_ATTENTION says, on the same cache each time.
Floats attend_with(const char* mode, const Shape& shape) {
    setenv("TURBOQUANT_ATTENTION", mode, 1);
    ggml_backend_ptr backend(ggml_backend_dev_init(load_plugin(), nullptr));  // it keeps what it was made with
    Layer layer(backend.get(), shape);
    layer.attend(7);
    layer.fill(1);
    return layer.attend(7);
}

TEST(Registration, DenseAttentionAgreesWithFused) {
    const ChildResult child = in_child({}, [] {
        bool agree = true;
        for (const Shape& shape : {Shape{}, Shape{.n_tokens = 1}, Shape{.softcap = 5, .sinks = true},
                                   Shape{.n_stream = 3, .n_kv = 192}, Shape{.max_bias = 8, .causal_holes = true}}) {
            const Floats fused = attend_with("fused", shape), dense = attend_with("dense", shape);
            // Equal results would be those of one path.
            agree = agree && !fused.empty() && fused != dense && relative_error(fused, dense) < kAttentionBound;
        }
        return agree;
    });
    EXPECT_EQ(child.status, 0) << child.log;
    EXPECT_NE(child.log.find(", dense attention (plugin"), std::string::npos) << child.log;
    EXPECT_EQ(child.log.find("attention takes the dense path"), std::string::npos) << child.log;  // nothing to warn of
}

TEST(Registration, DenseAttentionIsThatOfGgml) {
    const ChildResult child = in_child({"TURBOQUANT_ATTENTION=dense"}, [] { return error_against_cpu({}) < 1e-6; });
    EXPECT_EQ(child.status, 0) << child.log;
}

// ---- attention ------------------------------------------------------------------------------------------------------

struct Variant {
    const char* name;
    Shape shape;
};

void PrintTo(const Variant& variant, std::ostream* out) {
    *out << variant.name;
}

class Attention : public testing::TestWithParam<Variant> {};

TEST_P(Attention, AgreesWithCpuOnDecodedRows) {
    capture_log();
    const double error = error_against_cpu(GetParam().shape);
    RecordProperty("error", std::to_string(error));
    EXPECT_LT(error, kAttentionBound);
    EXPECT_EQ(count_logged("dense path"), 0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Attention,
                         testing::Values(Variant{"Plain", {}}, Variant{"OneToken", {.n_tokens = 1}},
                                         Variant{"NoGqa", {.n_head = 3}}, Variant{"ManyTokens", {.n_tokens = 70}},
                                         Variant{"DifferentHeadDims",
                                                 {.head_dim_k = 128, .head_dim_v = 80, .n_head = 4, .n_head_kv = 2}},
                                         Variant{"SmallestAndLargestHeadDim",
                                                 {.head_dim_k = 512, .head_dim_v = 16, .n_head = 2, .n_head_kv = 1}},
                                         Variant{"Holes", {.causal_holes = true}}, Variant{"Sinks", {.sinks = true}},
                                         Variant{"Softcap", {.softcap = 5}}, Variant{"Alibi", {.max_bias = 8}},
                                         Variant{"Streams", {.n_stream = 3, .n_kv = 192, .causal_holes = true}},
                                         Variant{"Long", {.n_cells = 2048, .n_tokens = 1, .n_kv = 1280}},
                                         Variant{"UnalignedCells", {.n_cells = 200, .n_kv = 200}}),
                         [](const auto& info) { return info.param.name; });

TEST(AttentionPaths, ThreadsDoNotChangeBits) {
    const Shape shape{.n_cells = 2048, .n_tokens = 1, .n_kv = 2048};
    Layer layer(plugin_backend(), shape);
    layer.fill(1);
    const Floats one = layer.attend(3, 1);
    EXPECT_EQ(one, layer.attend(3, 2));
    EXPECT_EQ(one, layer.attend(3, 5));
}

TEST(AttentionPaths, UnsupportedHeadDimIsDenseAndSaidOnce) {
    capture_log();
    EXPECT_LT(error_against_cpu({.head_dim_k = 40, .head_dim_v = 40, .n_head = 4, .n_head_kv = 2}), 0.005);
    EXPECT_EQ(
        count_logged(
            "attention takes the dense path (same cache, slower): head_dim 40 is not a multiple of 16 in 16..512"),
        1);
    EXPECT_LT(error_against_cpu({.head_dim_k = 576, .head_dim_v = 512, .n_head = 4, .n_head_kv = 1}), 0.005);
    EXPECT_EQ(count_logged("head_dim 576"), 1);
}

// ---- storing --------------------------------------------------------------------------------------------------------

TEST(SetRows, RowAndIndexTypesGiveTheSameBytes) {
    const Shape shape;
    const std::vector<int64_t> indices{5, 0, 255, 64, 63};
    Floats rows = random_rows(5, shape.n_embd(true), 1);
    std::vector<ggml_fp16_t> halves(rows.size());
    ggml_fp32_to_fp16_row(rows.data(), halves.data(), static_cast<int64_t>(rows.size()));
    ggml_fp16_to_fp32_row(halves.data(), rows.data(), static_cast<int64_t>(rows.size()));
    std::vector<std::vector<uint8_t>> packed;
    for (ggml_type row : {GGML_TYPE_F32, GGML_TYPE_F16}) {
        for (ggml_type index : {GGML_TYPE_I64, GGML_TYPE_I32}) {
            Layer layer(plugin_backend(), shape);
            ASSERT_EQ(layer.store(layer.keys(), rows, indices, row, index), GGML_STATUS_SUCCESS);
            packed.push_back(layer.packed(layer.keys()));
            EXPECT_EQ(packed.back(), packed.front());
            EXPECT_NE(packed.back(), std::vector<uint8_t>(packed.back().size()));
        }
    }
}

TEST(SetRows, IndexOutsideTheCacheFails) {
    capture_log();
    Layer layer(plugin_backend(), {});
    for (int64_t index : {int64_t{-1}, int64_t{256}, int64_t{1} << 40}) {
        EXPECT_EQ(layer.store(layer.keys(), random_rows(1, 192, 1), {index}), GGML_STATUS_FAILED);
    }
    EXPECT_EQ(count_logged("stores a row outside the KV cache"), 3);
    const std::vector<uint8_t> bytes = layer.packed(layer.keys());
    EXPECT_EQ(bytes, std::vector<uint8_t>(bytes.size()));
}

TEST(SetRows, TransposedValuesFailWithAHint) {
    capture_log();
    Layer layer(plugin_backend(), {});
    EXPECT_EQ(layer.store_transposed(random_rows(1, 192, 1)), GGML_STATUS_FAILED);
    EXPECT_GE(count_logged("run with -fa on"), 1);
}

// ---- reading and writing --------------------------------------------------------------------------------------------

TEST(Buffer, TakesThePackedSize) {
    const Shape shape{.n_cells = 1024};
    Layer layer(plugin_backend(), shape);
    const double nominal = static_cast<double>(ggml_nbytes(layer.keys()) + ggml_nbytes(layer.values()));
    EXPECT_NEAR(16 * static_cast<double>(ggml_backend_buffer_get_size(layer.buffer())) / nominal, 4.1875, 0.01);
}

TEST(Buffer, TakesTheSizeOfItsLayersPreset) {
    const auto allocated_as_8_bits = [] {
        ggml_backend_ptr backend(ggml_backend_dev_init(load_plugin(), nullptr));
        Layer layer(backend.get(), {.n_cells = 1024});  // layer 0
        const double nominal = static_cast<double>(ggml_nbytes(layer.keys()) + ggml_nbytes(layer.values()));
        return std::abs(16 * static_cast<double>(ggml_backend_buffer_get_size(layer.buffer())) / nominal - 8.1875) <
               0.01;
    };
    const ChildResult child = in_child({"TURBOQUANT_KV=k4v4+0:k8v8"}, allocated_as_8_bits);
    EXPECT_EQ(child.status, 0) << child.log;
    EXPECT_NE(child.log.find("k4v4+0:k8v8 (k4v4; layer 0: k8v8), most layers 4.19 bits per value"), std::string::npos)
        << child.log;
    EXPECT_NE(in_child({"TURBOQUANT_KV=k4v4+1:k8v8"}, allocated_as_8_bits).status, 0);
}

TEST(Buffer, RowsWrittenAsReadKeepTheirBytes) {
    const Shape shape{.n_stream = 2};
    Layer layer(plugin_backend(), shape);
    layer.fill(1);
    const Floats before = layer.attend(3);
    Layer other(plugin_backend(), shape);
    other.attend(3);  // llama.cpp, too, makes head_dim known before it restores a state
    for (auto cache : {&Layer::keys, &Layer::values}) {
        other.write((other.*cache)(), layer.read((layer.*cache)()));
        EXPECT_EQ(other.packed((other.*cache)()), layer.packed((layer.*cache)()));
        EXPECT_EQ(other.read((other.*cache)()), layer.read((layer.*cache)()));
    }
    EXPECT_EQ(other.attend(3), before);
}

TEST(Buffer, PartsOfRows) {
    Layer layer(plugin_backend(), {});
    layer.attend(3);
    layer.fill(1);
    const std::vector<uint16_t> rows = layer.read(layer.keys());
    std::vector<uint16_t> part(500);  // 2.6 rows, from the middle of one
    ggml_backend_tensor_get(layer.keys(), part.data(), 2 * 1000, 2 * part.size());
    EXPECT_TRUE(std::equal(part.begin(), part.end(), rows.begin() + 1000));

    const std::vector<uint8_t> packed = layer.packed(layer.keys());
    ggml_backend_tensor_set(layer.keys(), part.data(), 2 * 1000, 2 * part.size());
    EXPECT_EQ(layer.packed(layer.keys()), packed);

    ggml_backend_tensor_memset(layer.keys(), 0, 384 * 3, 384 * 2);
    const Floats after = layer.read_floats(layer.keys());
    EXPECT_TRUE(std::all_of(after.begin() + 192 * 3, after.begin() + 192 * 5, [](float x) { return x == 0; }));
    const std::vector<uint16_t> halves = layer.read(layer.keys());
    EXPECT_TRUE(std::equal(rows.begin(), rows.begin() + 192 * 3, halves.begin()));
    EXPECT_TRUE(std::equal(rows.begin() + 192 * 5, rows.end(), halves.begin() + 192 * 5));
}

TEST(Buffer, ClearedRowsAreZeros) {
    Layer layer(plugin_backend(), {});
    layer.fill(1);
    ggml_backend_buffer_clear(layer.buffer(), 0);
    const Floats rows = layer.read_floats(layer.values());
    EXPECT_EQ(rows, Floats(rows.size()));
}

TEST(Buffer, StreamsAreCopiedBitForBit) {
    const Shape shape{.n_stream = 3};
    Layer layer(plugin_backend(), shape);
    layer.attend(3);
    layer.fill(1);
    const std::vector<uint16_t> before = layer.read(layer.keys());
    layer.copy_stream(layer.keys(), 2, 0);
    const std::vector<uint16_t> after = layer.read(layer.keys());
    const auto stream = static_cast<std::ptrdiff_t>(before.size() / 3);
    EXPECT_TRUE(std::equal(after.begin(), after.begin() + stream, before.begin() + 2 * stream));
    EXPECT_TRUE(std::equal(after.begin() + stream, after.end(), before.begin() + stream));
}

// ---- context shift --------------------------------------------------------------------------------------------------

TEST(ContextShift, MovesOnlyRowsWithAShift) {
    const Shape shape{.n_cells = 640};
    Layer layer(plugin_backend(), shape), dense(cpu_backend(), shape);
    layer.attend(3);
    layer.fill(1);
    const std::vector<uint8_t> packed = layer.packed(layer.keys());
    const std::vector<uint16_t> before = layer.read(layer.keys());
    dense.write(dense.keys(), before);

    std::vector<int32_t> shift(640, 0);
    ASSERT_EQ(layer.shift_keys(shift), GGML_STATUS_SUCCESS);
    EXPECT_EQ(layer.packed(layer.keys()), packed);

    for (size_t row = 100; row < 500; ++row) shift[row] = -37;
    ASSERT_EQ(layer.shift_keys(shift), GGML_STATUS_SUCCESS);
    ASSERT_EQ(dense.shift_keys(shift), GGML_STATUS_SUCCESS);
    const std::vector<uint16_t> after = layer.read(layer.keys());
    EXPECT_TRUE(std::equal(before.begin(), before.begin() + 192 * 100, after.begin()));
    EXPECT_TRUE(std::equal(before.begin() + 192 * 500, before.end(), after.begin() + 192 * 500));
    // One more quantization of the same kind: about 0.1 at 4 bits.
    EXPECT_LT(relative_error(layer.read_floats(layer.keys()), dense.read_floats(dense.keys())), 0.12);
    EXPECT_GT(relative_error(layer.read_floats(layer.keys()), dense.read_floats(dense.keys())), 0.001);
}

}  // namespace
}  // namespace tq::e2e
