// Generation with libllama: models with and without the plugin's device, contexts, greedy decoding.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <llama-cpp.h>
#include <llama.h>

namespace tq::e2e {

using Tokens = std::vector<llama_token>;
using Logits = std::vector<float>;

enum class Cache { kF16, kTurboQuant };

// f16: with the CPU alone (--device none). Null if the model or the device can't be loaded.
llama_model_ptr load_model(const std::string& path, Cache cache);

// The first n tokens of a built-in English text (there are about 700), from a token on.
Tokens prompt(const llama_model* model, size_t n, size_t from = 0);

struct ContextOptions {
    uint32_t n_ctx = 1024;  // cells of all sequences together
    uint32_t n_batch = 512;
    uint32_t n_seq_max = 1;
    bool unified = false;
    int n_threads = 2;
};

// A context with flash attention on.
class Session {
  public:
    explicit Session(llama_model* model, const ContextOptions& options = {});

    int n_seq_max() const { return static_cast<int>(options_.n_seq_max); }
    llama_context* context() { return context_.get(); }
    llama_memory_t memory() { return llama_get_memory(context_.get()); }

    // Decodes tokens at positions from `position` on, n_batch at a time. Returns the logits of the last one; empty on
    // failure.
    Logits decode(const Tokens& tokens, llama_pos position, llama_seq_id seq = 0);
    // The same, and the logits of each token.
    std::vector<Logits> decode_all(const Tokens& tokens, llama_pos position, llama_seq_id seq = 0);
    // One token of each sequence in one batch; the logits of each.
    std::vector<Logits> decode_together(const Tokens& tokens, const std::vector<llama_pos>& positions);

    // Greedy decoding of n tokens, the first one from these logits.
    Tokens generate(Logits logits, llama_pos position, size_t n, llama_seq_id seq = 0);

    // State of a sequence, as llama.cpp saves it.
    std::vector<uint8_t> save(llama_seq_id seq);
    bool restore(const std::vector<uint8_t>& state, llama_seq_id seq);

  private:
    Logits logits_at(int index);

    ContextOptions options_;
    int n_vocab_;
    llama_context_ptr context_;
};

llama_token argmax(const Logits& logits);

// Kullback-Leibler divergence of softmax(q) from softmax(p); NaN if any logit is.
double kl_divergence(const Logits& p, const Logits& q);
// The mean over tokens; NaN if there are none, or not as many of both.
double mean_kl_divergence(const std::vector<Logits>& p, const std::vector<Logits>& q);

}  // namespace tq::e2e
