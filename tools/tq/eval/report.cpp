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
        if (const int* length = records.greedy(cache, i)) ++count, sum += *length, squares += double{1} * *length * *length;
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

Json to_json(const Estimate& e) { return {{"value", e.value}, {"error", e.error}}; }

Json to_json(const CacheReport& c) {
    const DivergenceSummary& d = c.divergence;
    Json json = {{"cache", c.name},
                 {"system", c.packed ? "turboquant" : "llama.cpp"},
                 {"bits_per_value", c.bits_per_value},
                 {"n_tokens", d.n_tokens},
                 {"mean_kld", to_json(d.mean_kld)},
                 {"median_kld", d.median_kld},
                 {"kld_99.9%", d.kld_999},
                 {"same_top", to_json(d.same_top)},
                 {"perplexity", d.perplexity},
                 {"perplexity_ratio", to_json(d.perplexity_ratio)}};
    if (c.greedy) json["greedy_tokens"] = to_json(*c.greedy);
    if (c.recalled) json["recalled"] = *c.recalled, json["recall_log_p"] = *c.recall_log_p;
    return json;
}

}  // namespace

EvalReport make_report(const EvalOptions& options, const std::vector<CacheChoice>& caches, const std::vector<double>& bits,
                       int n_chunks, const Records& records) {
    EvalReport report{options, n_chunks, {}};
    for (size_t i = 0; i < caches.size(); ++i) {
        CacheReport c;
        c.name = caches[i].name;
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
    std::string text = fmt::format("{}, {}: {} chunks of {} tokens\n", r.options.model, r.options.text, r.n_chunks, r.options.n_ctx);
    if (r.n_chunks > 0) {
        text += fmt::format("perplexity with an f16 cache: {:.4f}\n", r.caches.front().divergence.perplexity_f16);
    }
    text += fmt::format("\n{:14} {:>6} {:>19} {:>9} {:>8} {:>14} {:>18}", "cache", "bits", "mean KLD", "median", "99.9%",
                        "same top, %", "perplexity ratio");
    const bool greedy = r.options.n_greedy > 0, recall = r.options.n_recall > 0;
    if (greedy) text += fmt::format(" {:>14}", fmt::format("same of {}", kGreedyTokens));
    if (recall) text += fmt::format(" {:>10} {:>8}", "recalled,%", "log p");
    text += '\n';
    for (const CacheReport& c : r.caches) {
        const DivergenceSummary& d = c.divergence;
        text += fmt::format("{:14} {:>6.3f} {:>9.5f} ± {:.5f} {:>9.5f} {:>8.4f} {:>7.2f} ± {:.2f} {:>9.4f} ± {:.4f}", c.name,
                            c.bits_per_value, d.mean_kld.value, d.mean_kld.error, d.median_kld, d.kld_999,
                            100 * d.same_top.value, 100 * d.same_top.error, d.perplexity_ratio.value,
                            d.perplexity_ratio.error);
        if (greedy && c.greedy) text += fmt::format(" {:>7.1f} ± {:.1f}", c.greedy->value, c.greedy->error);
        if (recall && c.recalled) text += fmt::format(" {:>10.1f} {:>8.3f}", 100 * *c.recalled, *c.recall_log_p);
        text += '\n';
    }
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

std::string report_svg(const EvalReport& r) {
    constexpr double kWidth = 720, kHeight = 440, kLeft = 70, kRight = 20, kTop = 20, kBottom = 50;
    double low = 1e9, high = 0, most_bits = 0;
    for (const CacheReport& c : r.caches) {
        if (c.bits_per_value > 12 || c.divergence.mean_kld.value <= 0) continue;   // f16 and its like would squeeze the rest
        low = std::min(low, c.divergence.mean_kld.value);
        high = std::max(high, c.divergence.mean_kld.value);
        most_bits = std::max(most_bits, c.bits_per_value);
    }
    if (high == 0) low = 1e-3, high = 1, most_bits = 8;
    const double bottom = std::floor(std::log10(low)), top = std::ceil(std::log10(high) + 1e-9), right = std::ceil(most_bits);
    const auto x = [&](double bits) { return kLeft + (kWidth - kLeft - kRight) * (bits - 2) / (right - 2); };
    const auto y = [&](double kld) {
        return kHeight - kBottom - (kHeight - kTop - kBottom) * (std::log10(kld) - bottom) / (top - bottom);
    };
    std::string svg = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        kWidth, kHeight);
    for (double bits = 2; bits <= right; ++bits) {
        svg += fmt::format("<path d=\"M{0:.1f} {1} V{2}\" stroke=\"#ddd\"/><text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4}</text>\n",
                           x(bits), kTop, kHeight - kBottom, kHeight - kBottom + 16, bits);
    }
    for (double power = bottom; power <= top; ++power) {
        const double at = y(std::pow(10, power));
        svg += fmt::format("<path d=\"M{0} {1:.1f} H{2}\" stroke=\"#ddd\"/><text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
                           kLeft, at, kWidth - kRight, kLeft - 6, at + 4, std::pow(10, power));
    }
    svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">bits per value, everything counted</text>\n",
                       (kLeft + kWidth - kRight) / 2, kHeight - 12);
    svg += fmt::format("<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">mean KLD against f16</text>\n",
                       (kTop + kHeight - kBottom) / 2);
    for (const CacheReport& c : r.caches) {
        if (c.bits_per_value > 12 || c.divergence.mean_kld.value <= 0) continue;
        svg += fmt::format("<circle cx=\"{0:.1f}\" cy=\"{1:.1f}\" r=\"4\" fill=\"{2}\"/><text x=\"{3:.1f}\" y=\"{4:.1f}\" fill=\"{2}\">{5}</text>\n",
                           x(c.bits_per_value), y(c.divergence.mean_kld.value), c.packed ? "#0b6" : "#a33",
                           x(c.bits_per_value) + 7, y(c.divergence.mean_kld.value) + (c.packed ? 12 : -4), c.name);
    }
    return svg + "</svg>\n";
}

}  // namespace tq::tool
