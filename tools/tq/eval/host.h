// llama.cpp as the evaluation uses it: one model, and a context for each KV cache.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "eval/cache_choice.h"
#include "eval/llama_api.h"

namespace tq::tool {

using Tokens = std::vector<llama_token>;

struct HostOptions {
    std::string model;    // GGUF file
    std::string llama;    // folder of llama.cpp's libraries; empty: the build's
    std::string plugin;   // libggml-turboquant.so; empty: the build's
    int n_threads = 1;
    std::string calibration;   // file, for calibrated caches
};

// A context with flash attention on, of one sequence.
class Session {
  public:
    Session(const LlamaApi& api, llama_context* context, int n_vocab);

    // Forgets everything.
    void clear();
    // Decodes tokens at positions from `position` on, at most n_batch of them; logits of those from `first_output` on
    // are kept until the next call. False if llama.cpp fails.
    bool decode(const llama_token* tokens, int n, int position, int first_output);
    // n_vocab logits of token i of the last call.
    const float* logits(int i) const { return api_->get_logits_ith(context_.get(), i); }
    int n_vocab() const { return n_vocab_; }

  private:
    const LlamaApi* api_;
    std::unique_ptr<llama_context, decltype(&llama_free)> context_;
    int n_vocab_;
};

class Host {
  public:
    // Loads libraries and the model. Errors: kUnsupported, kInvalidArgument, with llama.cpp's own words.
    static Result<Host> create(const HostOptions& options);

    // A function that llama.cpp calls for every node of its graphs, before and after.
    struct Watch {
        ggml_backend_sched_eval_callback callback = nullptr;
        void* data = nullptr;
    };
    // n_batch tokens at most in a call of decode, computed n_ubatch at a time.
    Result<Session> open(const CacheChoice& cache, int n_ctx, int n_batch, int n_ubatch, Watch watch = {nullptr, nullptr});

    // With the model's own beginning of a text.
    Tokens tokenize(const std::string& text) const;
    int n_vocab() const { return api_->vocab_n_tokens(vocab()); }
    // The token that texts begin with; empty if the model has none.
    std::optional<llama_token> begin_of_text() const;

  private:
    using Model = std::unique_ptr<llama_model, decltype(&llama_model_free)>;
    Host(const LlamaApi* api, HostOptions options) : api_(api), options_(std::move(options)) {}
    const llama_vocab* vocab() const { return api_->model_get_vocab(cpu_model_.get()); }
    Result<Model> load_model(ggml_backend_dev_t device);
    Status load_plugin();

    const LlamaApi* api_;
    HostOptions options_;
    Model cpu_model_{nullptr, nullptr}, packed_model_{nullptr, nullptr};   // weights are mapped: in memory once
    ggml_backend_reg_t plugin_ = nullptr;
};

}  // namespace tq::tool
