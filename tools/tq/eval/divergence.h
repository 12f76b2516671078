// This measures how far a cache's predictions are from those with an f16 cache.
#pragma once

#include <vector>

namespace tq::tool {

// The divergence at one predicted token. p: with the f16 cache, q: with the one at hand.
struct Divergence {
    float kld;           // sum p (log p - log q)
    float log_p, log_q;  // log-probabilities of the token that follows in the text
    bool same_top;
};

// One token; p and q are n_vocab logits.
Divergence diverge(const float* p, const float* q, int n_vocab, int next);

struct Estimate {
    double value = 0, error = 0;  // standard error
};

struct DivergenceSummary {
    long n_tokens = 0;
    Estimate mean_kld;
    double median_kld = 0, kld_999 = 0;
    Estimate same_top;
    Estimate perplexity_ratio;  // perplexity with the cache over that with f16
    double perplexity = 0, perplexity_f16 = 0;
};

DivergenceSummary summarize(const std::vector<Divergence>& tokens);

}  // namespace tq::tool
