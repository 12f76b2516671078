// Runs the model with every cache, side by side, and records how predictions differ.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "eval/host.h"
#include "eval/options.h"
#include "eval/records.h"

namespace tq::tool {

inline constexpr int kGreedyTokens = 64;   // tokens that a prompt is continued by
inline constexpr int kPassageTokens = 24;  // tokens of a hidden passage
inline constexpr int kPassageCue = 8;      // tokens of it that are given at the end; the others are to be recalled

// n_threads 0: every core.
HostOptions host_options(const EvalOptions& options);

class Evaluation {
  public:
    // progress: called with a line before each step.
    Evaluation(Host& host, const EvalOptions& options, std::vector<CacheChoice> caches, Tokens text, Records& records,
               std::function<void(const std::string&)> progress);

    // Chunks that the text has, at most the number asked for.
    int n_chunks() const { return n_chunks_; }
    // Evaluates what is not recorded yet. Errors: kUnsupported, kInvalidArgument.
    Status run();

  private:
    struct Contestant {
        CacheChoice cache;
        Session session;
    };
    Status open_sessions();
    Status run_chunks();
    Status run_chunk(int index, const std::vector<Contestant*>& missing);
    Status compare_batch(int begin, int n, const std::vector<Contestant*>& missing, const Tokens& chunk,
                         std::vector<std::vector<Divergence>>& results);
    Status run_greedy();
    Status run_recall();
    Tokens chunk_tokens(int index) const;
    Tokens recall_context(int index) const;
    // Logits after the tokens; null if llama.cpp fails.
    const float* read(Session& session, const Tokens& tokens);
    Result<Tokens> generate(Session& session, const Tokens& prompt);
    Result<Recall> recall(Session& session, const Tokens& context);
    template <class Missing>
    std::vector<Contestant*> contestants(Missing missing);
    Status failed(const std::string& cache) const;

    Host& host_;
    const EvalOptions& options_;
    std::vector<CacheChoice> caches_;
    Tokens text_;
    Records& records_;
    std::function<void(const std::string&)> progress_;
    int n_chunks_;
    std::optional<Session> f16_;
    std::vector<Contestant> contestants_;
};

}  // namespace tq::tool
