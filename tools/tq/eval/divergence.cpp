#include "eval/divergence.h"

#include <algorithm>
#include <cmath>

#include "bench/stats.h"

namespace tq::tool {
namespace {

double log_sum_exp(const float* logits, int n, float max) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += std::exp(logits[i] - max);
    return max + std::log(sum);
}

// Mean and standard error of fn(token).
template <class Fn>
Estimate mean(const std::vector<Divergence>& tokens, Fn fn) {
    const double n = static_cast<double>(tokens.size());
    double sum = 0, squares = 0;
    for (const Divergence& t : tokens) sum += fn(t), squares += fn(t) * fn(t);
    const double mean = sum / n;
    return {mean, n > 1 ? std::sqrt(std::max(0.0, squares / n - mean * mean) / (n - 1)) : 0};
}

}  // namespace

Divergence diverge(const float* p, const float* q, int n_vocab, int next) {
    const float* top_p = std::max_element(p, p + n_vocab);
    const float* top_q = std::max_element(q, q + n_vocab);
    const double sum_p = log_sum_exp(p, n_vocab, *top_p), sum_q = log_sum_exp(q, n_vocab, *top_q);
    double kld = 0;
    for (int i = 0; i < n_vocab; ++i) {
        const double log_p = p[i] - sum_p;
        if (log_p > -40) kld += std::exp(static_cast<float>(log_p)) * (log_p - (q[i] - sum_q));
    }
    return {static_cast<float>(kld), static_cast<float>(p[next] - sum_p), static_cast<float>(q[next] - sum_q),
            top_p - p == top_q - q};
}

DivergenceSummary summarize(const std::vector<Divergence>& tokens) {
    DivergenceSummary s;
    s.n_tokens = static_cast<long>(tokens.size());
    if (tokens.empty()) return s;
    std::vector<double> kld;
    for (const Divergence& t : tokens) kld.push_back(t.kld);
    std::sort(kld.begin(), kld.end());
    s.mean_kld = mean(tokens, [](const Divergence& t) { return double{t.kld}; });
    s.median_kld = quantile(kld, 0.5);
    s.kld_999 = quantile(kld, 0.999);
    s.same_top = mean(tokens, [](const Divergence& t) { return t.same_top ? 1.0 : 0.0; });
    const Estimate log_ratio = mean(tokens, [](const Divergence& t) { return double{t.log_p} - t.log_q; });
    s.perplexity_ratio = {std::exp(log_ratio.value), std::exp(log_ratio.value) * log_ratio.error};
    s.perplexity_f16 = std::exp(-mean(tokens, [](const Divergence& t) { return double{t.log_p}; }).value);
    s.perplexity = s.perplexity_f16 * s.perplexity_ratio.value;
    return s;
}

}  // namespace tq::tool
