// llama.cpp as the evaluation uses it: one model, and a context for each KV cache.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <llama.h>

#include "eval/cache_choice.h"

namespace tq::tool {

using Tokens = std::vector<llama_token>;

struct HostOptions {
    std::string model;   // GGUF file
    std::string plugin;  // libggml-turboquant.so; empty: the build's
    int n_threads = 1;
    std::string calibration;  // file, for calibrated caches
    bool dry =
        false;  // only metadata are read and nothing is allocated: sessions can't decode, but be asked what they cost
};

// A context with flash attention on, of one sequence.
class Session {
  public:
    Session(llama_context* context, int n_vocab);

    // Forgets everything.
    void clear();
    // Decodes tokens at positions from `position` on, at most n_batch of them; logits of those from `first_output` on
    // are kept until the next call. False if llama.cpp fails.
    bool decode(const llama_token* tokens, int n, int position, int first_output);
    // n_vocab logits of token i of the last call.
    const float* logits(int i) const { return llama_get_logits_ith(context_.get(), i); }
    int n_vocab() const { return n_vocab_; }
    const llama_context* context() const { return context_.get(); }

  private:
    std::unique_ptr<llama_context, decltype(&llama_free)> context_;
    int n_vocab_;
};

class Host {
  public:
    // Loads libraries and the model. Errors: kUnsupported, kInvalidArgument, with llama.cpp's own words.
    static Result<Host> create(const HostOptions& options);
    // Says whether llama.cpp survives reading the model: create() and open() can abort on a damaged file. To be asked
    // first, before there are threads. Error: kInvalidArgument.
    static Status check_survival(const HostOptions& options);

    // A function that llama.cpp calls for every node of its graphs, before and after.
    struct Watch {
        ggml_backend_sched_eval_callback callback = nullptr;
        void* data = nullptr;
    };
    // n_batch tokens at most in a call of decode, computed n_ubatch at a time.
    Result<Session> open(const CacheChoice& cache, int n_ctx, int n_batch, int n_ubatch,
                         Watch watch = {nullptr, nullptr});

    const llama_model* model() const { return cpu_model_.get(); }
    // A value of the model's metadata; empty if it has none.
    std::string metadata(const char* key) const;

    // The tokens begin with the model's own beginning of a text.
    Tokens tokenize(const std::string& text) const;
    int n_vocab() const { return llama_vocab_n_tokens(vocab()); }
    // The token that texts begin with; empty if the model has none.
    std::optional<llama_token> begin_of_text() const;

  private:
    using Model = std::unique_ptr<llama_model, decltype(&llama_model_free)>;
    explicit Host(HostOptions options) : options_(std::move(options)) {}
    const llama_vocab* vocab() const { return llama_model_get_vocab(cpu_model_.get()); }
    Result<Model> load_model(ggml_backend_dev_t device);
    Status load_plugin();

    HostOptions options_;
    Model cpu_model_{nullptr, nullptr}, packed_model_{nullptr, nullptr};  // weights are mapped: in memory once
    ggml_backend_reg_t plugin_ = nullptr;
};

}  // namespace tq::tool
