// Calibration files (TURBOQUANT_CALIBRATION): used, said, and refused where they are not what they should be.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>

#include <gguf.h>

#include "support/attention_graph.h"
#include "support/host.h"

namespace tq::e2e {
namespace {

// Attention of 8-bit queries on the decoded rows; scales of 1/4 to 4 that fit nothing cost a factor.
constexpr double kAttentionBound = 0.05;

using Tensors = std::map<std::string, Floats>;

Floats wavy_scales(int64_t n) {
    Floats scales;
    for (int64_t i = 0; i < n; ++i) scales.push_back(std::exp2(2 * std::sin(static_cast<float>(i))));
    return scales;
}

Tensors tensors_of(const Shape& shape) {
    return {{"blk.0.attn_k.channel_scale", wavy_scales(shape.n_embd(true))},
            {"blk.0.attn_k_centered.channel_scale", wavy_scales(shape.n_embd(true))},
            {"blk.0.attn_v.channel_scale", wavy_scales(shape.n_embd(false))}};
}

// A file that goes with its object.
class File {
  public:
    explicit File(const Tensors& tensors, uint32_t format = 1) : File(std::string()) {
        ggml_context_ptr memory(ggml_init({1 << 20, nullptr, false}));
        gguf_context_ptr gguf(gguf_init_empty());
        gguf_set_val_u32(gguf.get(), "turboquant.calibration.format", format);
        gguf_set_val_str(gguf.get(), "turboquant.calibration.model", "a model");
        for (const auto& [name, scales] : tensors) {
            ggml_tensor* tensor = ggml_new_tensor_1d(memory.get(), GGML_TYPE_F32, static_cast<int64_t>(scales.size()));
            std::memcpy(tensor->data, scales.data(), sizeof(float) * scales.size());
            ggml_set_name(tensor, name.c_str());
            gguf_add_tensor(gguf.get(), tensor);
        }
        gguf_write_to_file(gguf.get(), path_.c_str(), false);
    }
    explicit File(const std::string& bytes) {
        std::string name = (std::filesystem::temp_directory_path() / "tq-calibration-XXXXXX").string();
        close(mkstemp(name.data()));
        path_ = name;
        std::ofstream(path_, std::ios::binary) << bytes;
    }
    ~File() { std::filesystem::remove(path_); }
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    const std::string& path() const { return path_; }
    std::string variable() const { return "TURBOQUANT_CALIBRATION=" + path_; }
    void truncate(uintmax_t bytes) const {
        std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - bytes);
    }

  private:
    std::string path_;
};

// Says how far attention on the packed cache is from ggml's on the same cache decoded.
double error_against_cpu() {
    const Shape shape;
    ggml_backend_ptr backend(ggml_backend_dev_init(load_plugin(), nullptr));
    ggml_backend_ptr cpu(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    Layer packed(backend.get(), shape), dense(cpu.get(), shape);
    packed.attend(7);  // head_dim is known from here on
    packed.fill(1);
    dense.write(dense.keys(), packed.read(packed.keys()));
    dense.write(dense.values(), packed.read(packed.values()));
    return relative_error(packed.attend(7), dense.attend(7));
}

// Returns the keys' packed bytes.
std::string packed_keys() {
    ggml_backend_ptr backend(ggml_backend_dev_init(load_plugin(), nullptr));
    Layer layer(backend.get(), {});
    layer.attend(7);
    layer.fill(1);
    const std::vector<uint8_t> bytes = layer.packed(layer.keys());
    return {bytes.begin(), bytes.end()};
}

void say(const std::string& text) {
    ggml_log_callback log;
    void* data;
    ggml_log_get(&log, &data);
    log(GGML_LOG_LEVEL_INFO, text.c_str(), data);
}

TEST(Calibration, AttentionStaysExact) {
    const File file(tensors_of({}));
    for (const char* preset :
         {"TURBOQUANT_KV=k8v8", "TURBOQUANT_KV=k4v4", "TURBOQUANT_KV=k4ctv4t", "TURBOQUANT_KV=k3cv3t"}) {
        for (const char* mode : {"TURBOQUANT_ATTENTION=fused", "TURBOQUANT_ATTENTION=dense"}) {
            const ChildResult child =
                in_child({preset, mode, file.variable()}, [] { return error_against_cpu() < kAttentionBound; });
            EXPECT_EQ(child.status, 0) << preset << " " << mode << "\n" << child.log;
        }
    }
}

TEST(Calibration, IsUsedAndSaid) {
    const File file(tensors_of({}));
    const auto stored = [] {
        say("bytes:" + std::to_string(std::hash<std::string>()(packed_keys())) + ";");
        return true;
    };
    const ChildResult plain = in_child({}, stored), calibrated = in_child({file.variable()}, stored);
    const auto bytes = [](const std::string& log) {
        return log.substr(log.find("bytes:"), log.find(';', log.find("bytes:")) - log.find("bytes:"));
    };
    EXPECT_NE(bytes(plain.log), bytes(calibrated.log));
    EXPECT_NE(calibrated.log.find(", calibrated by " + file.path() + " (a model)"), std::string::npos)
        << calibrated.log;
    EXPECT_EQ(calibrated.log.find("stored without"), std::string::npos) << calibrated.log;
    EXPECT_EQ(plain.log.find("calibrated"), std::string::npos) << plain.log;
}

TEST(Calibration, OfAnotherModelIsLeftAsideAndSaid) {
    Tensors others = tensors_of({});
    others["blk.0.attn_k.channel_scale"].resize(64);
    others.erase("blk.0.attn_v.channel_scale");
    const File file(others);
    const ChildResult child = in_child({file.variable()}, [] { return error_against_cpu() < kAttentionBound; });
    EXPECT_EQ(child.status, 0) << child.log;
    for (const char* name : {"blk.0.attn_k.channel_scale", "blk.0.attn_v.channel_scale"}) {
        EXPECT_NE(child.log.find(std::string("has no 192 scales ") + name), std::string::npos) << child.log;
    }
}

void expect_refused(const File& file, const std::string& reason) {
    const ChildResult child = in_child({file.variable()}, [] { return load_plugin() == nullptr; });
    EXPECT_EQ(child.status, 0) << reason << "\n" << child.log;
    EXPECT_NE(child.log.find("TURBOQUANT_CALIBRATION: " + file.path() + ": "), std::string::npos) << child.log;
    EXPECT_NE(child.log.find(reason), std::string::npos) << child.log;
}

TEST(Calibration, BadFilesAreRefusedWithTheReason) {
    expect_refused(File(std::string("not a GGUF file")), "not a readable GGUF file");
    expect_refused(File(std::string()), "not a readable GGUF file");
    expect_refused(File(tensors_of({}), 2), "not a calibration of this version");
    const File truncated(tensors_of({}));
    truncated.truncate(400);
    expect_refused(truncated, "truncated");
    for (float bad : {0.0f, -1.0f, 100.0f, std::numeric_limits<float>::quiet_NaN()}) {
        Tensors tensors = tensors_of({});
        tensors["blk.0.attn_v.channel_scale"][191] = bad;
        expect_refused(File(tensors), "blk.0.attn_v.channel_scale has scales beyond 1/64 to 64");
    }
}

TEST(Calibration, AMissingFileIsRefused) {
    const ChildResult child =
        in_child({"TURBOQUANT_CALIBRATION=/nowhere/c.gguf"}, [] { return load_plugin() == nullptr; });
    EXPECT_EQ(child.status, 0);
    EXPECT_NE(child.log.find("TURBOQUANT_CALIBRATION: /nowhere/c.gguf: can't be read"), std::string::npos) << child.log;
}

}  // namespace
}  // namespace tq::e2e
