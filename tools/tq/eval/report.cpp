#include "eval/report.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "eval/evaluation.h"

namespace tq::tool {
namespace {

using Json = nlohmann::ordered_json;

std::vector<Divergence> all_tokens(const Records& records, const std::string& cache, int n_chunks) {
    std::vector<Divergence> tokens;
    for (int i = 0; i < n_chunks; ++i) {
        if (const auto* chunk = records.chunk(cache, i)) tokens.insert(tokens.end(), chunk->begin(), chunk->end());
    }
    return tokens;
}

std::optional<Estimate> greedy_length(const Records& records, const std::string& cache, int n) {
    double count = 0, sum = 0, squares = 0;
    for (int i = 0; i < n; ++i) {
        if (const int* length = records.greedy(cache, i))
            ++count, sum += *length, squares += double{1} * *length * *length;
    }
    if (count == 0) return std::nullopt;
    const double mean = sum / count;
    return Estimate{mean, count > 1 ? std::sqrt((squares / count - mean * mean) / (count - 1)) : 0};
}

void add_recall(const Records& records, int n, CacheReport& report) {
    Recall all;
    for (int i = 0; i < n; ++i) {
        if (const Recall* one = records.recall(report.name, i)) {
            all.n_tokens += one->n_tokens, all.n_right += one->n_right, all.log_p += one->log_p;
        }
    }
    if (all.n_tokens == 0) return;
    report.recalled = double{1} * all.n_right / all.n_tokens;
    report.recall_log_p = all.log_p / all.n_tokens;
}

Json to_json(const Estimate& e) {
    return {{"value", e.value}, {"error", e.error}};
}

Json to_json(const CacheReport& c) {
    const DivergenceSummary& d = c.divergence;
    Json json = {{"cache", c.name},
                 {"description", c.description},
                 {"system", c.packed ? "turboquant" : "llama.cpp"},
                 {"bits_per_value", c.bits_per_value},
                 {"n_tokens", d.n_tokens},
                 {"mean_kld", to_json(d.mean_kld)},
                 {"median_kld", d.median_kld},
                 {"kld_999", d.kld_999},
                 {"same_top", to_json(d.same_top)},
                 {"perplexity", d.perplexity},
                 {"perplexity_ratio", to_json(d.perplexity_ratio)}};
    if (c.greedy) json["greedy_tokens"] = to_json(*c.greedy);
    if (c.recalled) json["recalled"] = *c.recalled, json["recall_log_p"] = *c.recall_log_p;
    return json;
}

// What labels stand for, where they do not say so themselves.
std::string legend_text(const EvalReport& r) {
    std::string text;
    for (const CacheReport& c : r.caches) {
        if (c.label != c.description)
            text += fmt::format("{}{}: {}\n", text.empty() ? "\n" : "", c.label, c.description);
    }
    return text;
}

}  // namespace

EvalReport make_report(const EvalOptions& options, const std::vector<CacheChoice>& caches,
                       const std::vector<double>& bits, int n_chunks, const Records& records) {
    EvalReport report{options, n_chunks, {}};
    for (size_t i = 0; i < caches.size(); ++i) {
        CacheReport c;
        c.name = caches[i].name;
        c.label = caches[i].label();
        c.description = caches[i].describe();
        c.packed = caches[i].presets.has_value();
        c.bits_per_value = bits[i];
        c.divergence = summarize(all_tokens(records, c.name, n_chunks));
        c.greedy = greedy_length(records, c.name, options.n_greedy);
        add_recall(records, options.n_recall, c);
        report.caches.push_back(std::move(c));
    }
    return report;
}

std::string report_text(const EvalReport& r) {
    std::string text =
        fmt::format("{}, {}: {} chunks of {} tokens\n", r.options.model, r.options.text, r.n_chunks, r.options.n_ctx);
    if (r.n_chunks > 0) {
        text += fmt::format("perplexity with an f16 cache: {:.4f}\n", r.caches.front().divergence.perplexity_f16);
    }
    size_t width = 14;
    for (const CacheReport& c : r.caches) width = std::max(width, c.label.size());
    text += fmt::format("\n{:{}} {:>6} {:>19} {:>9} {:>8} {:>14} {:>18}", "cache", width, "bits", "mean KLD", "median",
                        "99.9%", "same top, %", "perplexity ratio");
    const bool greedy = r.options.n_greedy > 0, recall = r.options.n_recall > 0;
    if (greedy) text += fmt::format(" {:>14}", fmt::format("same of {}", kGreedyTokens));
    if (recall) text += fmt::format(" {:>10} {:>8}", "recalled,%", "log p");
    text += '\n';
    for (const CacheReport& c : r.caches) {
        const DivergenceSummary& d = c.divergence;
        text += fmt::format("{:{}} {:>6.3f} {:>9.5f} ± {:.5f} {:>9.5f} {:>8.4f} {:>7.2f} ± {:.2f} {:>9.4f} ± {:.4f}",
                            c.label, width, c.bits_per_value, d.mean_kld.value, d.mean_kld.error, d.median_kld,
                            d.kld_999, 100 * d.same_top.value, 100 * d.same_top.error, d.perplexity_ratio.value,
                            d.perplexity_ratio.error);
        if (greedy && c.greedy) text += fmt::format(" {:>7.1f} ± {:.1f}", c.greedy->value, c.greedy->error);
        if (recall && c.recalled) text += fmt::format(" {:>10.1f} {:>8.3f}", 100 * *c.recalled, *c.recall_log_p);
        text += '\n';
    }
    text += legend_text(r);
    return text;
}

std::string report_json(const EvalReport& r) {
    Json caches = Json::array();
    for (const CacheReport& c : r.caches) caches.push_back(to_json(c));
    const Json json = {{"version", TQ_VERSION},
                       {"model", r.options.model},
                       {"text", r.options.text},
                       {"n_ctx", r.options.n_ctx},
                       {"n_chunks", r.n_chunks},
                       {"perplexity_f16", r.caches.empty() ? 0 : r.caches.front().divergence.perplexity_f16},
                       {"caches", std::move(caches)}};
    return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tq::tool
