// A model with sliding-window layers has two KV caches. There is no small one, so this makes one: gemma2 with random
// weights.
#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include <ggml-cpp.h>
#include <gguf.h>

#include "support/generation.h"
#include "support/host.h"

namespace tq::e2e {
namespace {

constexpr int kVocab = 512, kEmbd = 128, kLayers = 4, kHeads = 4, kHeadsKv = 2, kHeadDim = 64, kFf = 256, kWindow = 64;

class Writer {
  public:
    Writer() : gguf_(gguf_init_empty()), context_(ggml_init({size_t{16} << 20, nullptr, false})) {}

    void set(const char* key, uint32_t value) {
        gguf_set_val_u32(gguf_.get(), (std::string("gemma2.") + key).c_str(), value);
    }
    void set_float(const char* key, float value) {
        gguf_set_val_f32(gguf_.get(), (std::string("gemma2.") + key).c_str(), value);
    }
    void set_text(const char* key, const char* value) { gguf_set_val_str(gguf_.get(), key, value); }

    void norm(const std::string& name) { add(name, kEmbd, 1, 1, 0); }
    void matrix(const std::string& name, int64_t in, int64_t out) {
        add(name, in, out, 0, 1.0f / std::sqrt(static_cast<float>(in)));
    }

    bool write(const std::string& path) { return gguf_write_to_file(gguf_.get(), path.c_str(), false); }

  private:
    void add(const std::string& name, int64_t in, int64_t out, float mean, float deviation) {
        ggml_tensor* tensor = out == 1 ? ggml_new_tensor_1d(context_.get(), GGML_TYPE_F32, in)
                                       : ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, in, out);
        ggml_set_name(tensor, (name + ".weight").c_str());
        std::normal_distribution<float> normal;
        auto* values = static_cast<float*>(tensor->data);
        for (int64_t i = 0; i < in * out; ++i) values[i] = mean + deviation * normal(random_);
        gguf_add_tensor(gguf_.get(), tensor);
    }

    gguf_context_ptr gguf_;
    ggml_context_ptr context_;
    std::mt19937 random_{1};
};

bool write_gemma2(const std::string& path) {
    Writer w;
    w.set_text("general.architecture", "gemma2");
    w.set_text("tokenizer.ggml.model", "no_vocab");
    w.set("vocab_size", kVocab);
    w.set("context_length", 2048);
    w.set("embedding_length", kEmbd);
    w.set("block_count", kLayers);
    w.set("feed_forward_length", kFf);
    w.set("attention.head_count", kHeads);
    w.set("attention.head_count_kv", kHeadsKv);
    w.set("attention.key_length", kHeadDim);
    w.set("attention.value_length", kHeadDim);
    w.set("attention.sliding_window", kWindow);
    w.set_float("attention.layer_norm_rms_epsilon", 1e-6f);
    w.set_float("attn_logit_softcapping", 50);
    w.set_float("final_logit_softcapping", 30);
    w.matrix("token_embd", kEmbd, kVocab);
    w.norm("output_norm");
    for (int i = 0; i < kLayers; ++i) {
        const std::string layer = "blk." + std::to_string(i) + ".";
        for (const char* name : {"attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"}) w.norm(layer + name);
        w.matrix(layer + "attn_q", kEmbd, kHeads * kHeadDim);
        w.matrix(layer + "attn_k", kEmbd, kHeadsKv * kHeadDim);
        w.matrix(layer + "attn_v", kEmbd, kHeadsKv * kHeadDim);
        w.matrix(layer + "attn_output", kHeads * kHeadDim, kEmbd);
        w.matrix(layer + "ffn_gate", kEmbd, kFf);
        w.matrix(layer + "ffn_up", kEmbd, kFf);
        w.matrix(layer + "ffn_down", kFf, kEmbd);
    }
    return w.write(path);
}

TEST(SlidingWindow, TwoCachesStayCloseToF16) {
    const std::string path = testing::TempDir() + "tq-gemma2-" + std::to_string(getpid()) + ".gguf";
    ASSERT_TRUE(write_gemma2(path));
    capture_log();
    llama_model_ptr packed_model = load_model(path, Cache::kTurboQuant), f16_model = load_model(path, Cache::kF16);
    std::remove(path.c_str());
    ASSERT_TRUE(packed_model && f16_model) << (logged().empty() ? "" : logged().back());

    capture_log();
    Session packed(packed_model.get(), {.n_batch = 128});
    EXPECT_EQ(kv_buffer_mib().size(), 2u);
    EXPECT_EQ(count_logged("TurboQuant KV buffer size"), 2);
    Session f16(f16_model.get(), {.n_batch = 128});

    // 600 tokens go round the window's cache of 64 + 128 cells three times
    std::mt19937 random(2);
    Tokens tokens;
    for (int i = 0; i < 600; ++i) tokens.push_back(static_cast<llama_token>(random() % kVocab));
    Logits p = f16.decode(tokens, 0), q = packed.decode(tokens, 0);
    double divergence = 0;
    for (llama_pos position = 600; position < 664; ++position) {
        const llama_token next = argmax(p);
        p = f16.decode({next}, position);
        q = packed.decode({next}, position);
        divergence += kl_divergence(p, q) / 64;
    }
    std::printf("mean KLD against f16: %.5f\n", divergence);
    EXPECT_LT(divergence, 0.05);
    EXPECT_GT(divergence, 0) << "both ran on the same cache";
}

}  // namespace
}  // namespace tq::e2e
