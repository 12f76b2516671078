#include "bench/report.h"

#include <algorithm>
#include <map>
#include <tuple>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "bench/stats.h"
#include "cpu_device.h"
#include "turboquant/base/isa.h"

namespace tq::tool {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLeastDepths = 4;  // depths that a line needs to mean something

// Says how many times as long the other takes: the median over rounds, as what disturbs one round disturbs both.
Spread ratio(const Measured& other, const Measured& mine) {
    std::vector<double> ratios;
    for (size_t i = 0; i < mine.us.size(); ++i) ratios.push_back(other.us[i] / mine.us[i]);
    return spread_of(std::move(ratios));
}

// Bytes that a layer's call reads (attention), or that its rows would have as f16 (encode).
double moved_bytes(const BenchHeader& header, const CaseResult& result, const Measured& m) {
    if (header.kind == BenchKind::kAttention) return static_cast<double>(m.layer_bytes);
    return 2.0 * static_cast<double>(result.batch * (result.shape.n_embd_k() + result.shape.n_embd_v()));
}

double gbps(const BenchHeader& header, const CaseResult& result, const Measured& m, double us) {
    return moved_bytes(header, result, m) / us * 1e-3;
}

std::string label(const Measured& m) {
    return m.isa.empty() ? "ggml " + m.name : "tq " + m.label;
}

struct Fit {
    const CaseResult* first;
    const Measured* who;
    LinearFit line;  // us over cells
    size_t n;
};

std::vector<Fit> fits_of(const std::vector<CaseResult>& results) {
    using Key = std::tuple<std::string, int64_t, int, std::string, std::string>;
    struct Points {
        const CaseResult* first;
        const Measured* who;
        std::vector<double> x, y;
    };
    std::map<Key, Points> groups;
    for (const CaseResult& r : results) {
        for (const Measured& m : r.measurement.measured) {
            auto [at, fresh] =
                groups.try_emplace({r.shape.name(), r.batch, r.threads, m.name, m.isa}, Points{&r, &m, {}, {}});
            at->second.x.push_back(static_cast<double>(r.depth));
            at->second.y.push_back(spread_of(m.us).median);
        }
    }
    std::vector<Fit> fits;
    for (const auto& [key, points] : groups) {
        if (points.x.size() < kLeastDepths) continue;
        fits.push_back({points.first, points.who, fit_line(points.x, points.y), points.x.size()});
    }
    return fits;
}

// ---- JSON

Json to_json(const Spread& s) {
    return {{"min", s.min}, {"p10", s.p10}, {"median", s.median}, {"p90", s.p90}, {"max", s.max}};
}

Json ggml_json(const BenchHeader& header) {
    if (!header.cpu) return nullptr;
    return {{"version", ggml_version()}, {"commit", ggml_commit()}, {"features", cpu_features(header.cpu)}};
}

Json to_json(const BenchHeader& header, const CaseResult& result, const Measured& m) {
    const Spread us = spread_of(m.us);
    Json json = {{"name", m.name},
                 {"description", m.isa.empty() ? Json(nullptr) : Json(m.description)},
                 {"system", m.isa.empty() ? "ggml" : "turboquant"},
                 {"isa", m.isa.empty() ? Json(nullptr) : Json(m.isa)},
                 {"bits_per_value", m.bits},
                 {"layer_bytes", m.layer_bytes},
                 {"passes", m.passes},
                 {"us", to_json(us)},
                 {"gbps", gbps(header, result, m, us.median)}};
    if (header.kind == BenchKind::kEncode) json["us_per_row"] = us.median / static_cast<double>(result.batch);
    if (!result.measurement.read_gbps.empty()) {
        const double ceiling = spread_of(result.measurement.read_gbps).median;
        json["percent_of_read"] = 100 * gbps(header, result, m, us.median) / ceiling;
    }
    Json ratios = Json::object();
    for (const Measured& other : result.measurement.measured) {
        if (other.isa.empty() && &other != &m) ratios[other.name] = to_json(ratio(other, m));
    }
    json["times_faster_than"] = std::move(ratios);
    if (m.error) json["distance_to_f16"] = *m.error;
    if (m.digest) json["digest"] = fmt::format("{:016x}", *m.digest);
    json["samples_us"] = m.us;
    return json;
}

Json to_json(const BenchHeader& header, const CaseResult& result) {
    Json contestants = Json::array();
    for (const Measured& m : result.measurement.measured) contestants.push_back(to_json(header, result, m));
    Json json = {{"shape", result.shape.name()},
                 {"n_head", result.shape.n_head},
                 {"n_head_kv", result.shape.n_head_kv},
                 {"head_dim_k", result.shape.head_dim_k},
                 {"head_dim_v", result.shape.head_dim_v},
                 {"depth", result.depth},
                 {"batch", result.batch},
                 {"threads", result.threads},
                 {"layers", result.n_layer},
                 {"rounds", result.measurement.measured.front().us.size()}};
    json["read_gbps"] = nullptr;
    if (!result.measurement.read_gbps.empty()) json["read_gbps"] = to_json(spread_of(result.measurement.read_gbps));
    json["results"] = std::move(contestants);
    json["notes"] = result.notes;
    return json;
}

Json fits_json(const std::vector<CaseResult>& results) {
    Json json = Json::array();
    for (const Fit& fit : fits_of(results)) {
        json.push_back({{"shape", fit.first->shape.name()},
                        {"batch", fit.first->batch},
                        {"threads", fit.first->threads},
                        {"name", fit.who->name},
                        {"isa", fit.who->isa.empty() ? Json(nullptr) : Json(fit.who->isa)},
                        {"depths", fit.n},
                        {"intercept_us", fit.line.intercept},
                        {"us_per_1024_cells", fit.line.slope * 1024},
                        {"r2", fit.line.r2},
                        {"worst_relative_deviation", fit.line.worst}});
    }
    return json;
}

const char* kind_name(BenchKind kind) {
    return kind == BenchKind::kAttention ? "attention" : "encode";
}

// ---- text

std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
    return text;
}

size_t label_width(const CaseResult& result) {
    size_t width = 0;
    for (const Measured& m : result.measurement.measured) width = std::max(width, label(m).size());
    return width;
}

std::string row_text(const BenchHeader& header, const CaseResult& result, const Measured& m) {
    const Spread us = spread_of(m.us);
    const double rate = gbps(header, result, m, us.median);
    std::string row = fmt::format("  {:{}} {:10} {:>6.3f} {:>10.1f} {:>9.1f}..{:<9.1f} {:>7.2f}", label(m),
                                  label_width(result), m.isa, m.bits, us.median, us.p10, us.p90, rate);
    if (header.kind == BenchKind::kEncode)
        row += fmt::format(" {:>8.3f}", us.median / static_cast<double>(result.batch));
    if (!result.measurement.read_gbps.empty()) {
        row += fmt::format(" {:>6.1f}%", 100 * rate / spread_of(result.measurement.read_gbps).median);
    }
    for (const Measured& other : result.measurement.measured) {
        if (other.isa.empty()) row += fmt::format(" {:>7.3g}x", ratio(other, m).median);
    }
    if (m.error) row += fmt::format(" {:>8.4f}", *m.error);
    return row + "\n";
}

std::string columns_text(const BenchHeader& header, const CaseResult& result) {
    std::string text = fmt::format("  {:{}} {:10} {:>6} {:>10} {:>20} {:>7}", "cache", label_width(result), "isa",
                                   "bits", "us/layer", "p10..p90        ", "GB/s");
    if (header.kind == BenchKind::kEncode) text += fmt::format(" {:>8}", "us/row");
    if (!result.measurement.read_gbps.empty()) text += fmt::format(" {:>7}", "of read");
    for (const Measured& other : result.measurement.measured) {
        if (other.isa.empty()) text += fmt::format(" {:>8}", "vs " + other.name);
    }
    if (result.measurement.measured.front().error) text += fmt::format(" {:>8}", "distance");
    return text + "\n";
}

// What labels stand for, where they do not say so themselves; once for each preset, whatever ISAs it ran on.
std::string legend_text(const CaseResult& result) {
    std::string text;
    for (const Measured& m : result.measurement.measured) {
        const std::string line = fmt::format("  {}: {}\n", m.label, m.description);
        if (m.label != m.description && text.find(line) == std::string::npos) text += line;
    }
    return text;
}

}  // namespace

std::string header_text(const BenchHeader& header) {
    std::string text =
        fmt::format("turboquant.cpp {}: {}\n{}, {} cores, last-level cache {} MiB\n", TQ_VERSION,
                    kind_name(header.kind), header.machine.cpu, header.machine.cores, header.machine.l3_bytes >> 20);
    if (header.cpu) {
        text += fmt::format("ggml {} ({}): {}\n", ggml_version(), ggml_commit(), joined(cpu_features(header.cpu)));
    }
    return text;
}

std::string case_text(const BenchHeader& header, const CaseResult& result) {
    const Measurement& m = result.measurement;
    std::string text = fmt::format(
        "\n{} (heads/KV heads/head size), depth {}, batch {}, {} thread(s): {} layers, {} rounds", result.shape.name(),
        result.depth, result.batch, result.threads, result.n_layer, m.measured.front().us.size());
    if (!m.read_gbps.empty()) {
        const Spread read = spread_of(m.read_gbps);
        text += fmt::format(", memory read {:.2f} GB/s (best {:.2f})", read.median, read.max);
    }
    text += "\n" + columns_text(header, result);
    for (const Measured& each : m.measured) text += row_text(header, result, each);
    text += legend_text(result);
    for (const std::string& note : result.notes) text += "  note: " + note + "\n";
    return text;
}

std::string fits_text(const BenchHeader&, const std::vector<CaseResult>& results) {
    std::string text;
    for (const Fit& fit : fits_of(results)) {
        text += fmt::format(
            "  {:10} batch {:<3} {} threads  {:11} {:10} {:>9.1f} us + {:>8.3f} us per 1024 cells, R2 {:.5f}, "
            "worst deviation {:.1f}%\n",
            fit.first->shape.name(), fit.first->batch, fit.first->threads, label(*fit.who), fit.who->isa,
            fit.line.intercept, fit.line.slope * 1024, fit.line.r2, 100 * fit.line.worst);
    }
    return text.empty() ? text : "\nleast squares over depth:\n" + text;
}

std::string json_text(const BenchHeader& header, const std::vector<CaseResult>& results) {
    Json cases = Json::array();
    for (const CaseResult& result : results) cases.push_back(to_json(header, result));
    const Json json = {{"version", TQ_VERSION},
                       {"bench", kind_name(header.kind)},
                       {"machine",
                        {{"cpu", header.machine.cpu},
                         {"cores", header.machine.cores},
                         {"last_level_cache_bytes", header.machine.l3_bytes}}},
                       {"ggml", ggml_json(header)},
                       {"cases", std::move(cases)},
                       {"fits", fits_json(results)}};
    return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tq::tool
