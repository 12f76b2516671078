// This reports what an evaluation has found, as text or JSON.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "eval/options.h"
#include "eval/records.h"

namespace tq::tool {

struct CacheReport {
    std::string name, label, description;  // as given; CacheChoice's label() and describe()
    bool packed = false;
    double bits_per_value = 0;
    DivergenceSummary divergence;
    std::optional<Estimate> greedy;      // tokens until the first difference, kGreedyTokens at most
    std::optional<double> recalled;      // share of the hidden tokens
    std::optional<double> recall_log_p;  // mean, of a hidden token
};

struct EvalReport {
    EvalOptions options;
    int n_chunks = 0;
    std::vector<CacheReport> caches;
};

EvalReport make_report(const EvalOptions& options, const std::vector<CacheChoice>& caches,
                       const std::vector<double>& bits, int n_chunks, const Records& records);

std::string report_text(const EvalReport& report);
std::string report_json(const EvalReport& report);

}  // namespace tq::tool
