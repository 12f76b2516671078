// The results of tq bench as a table and as JSON.
#pragma once

#include <string>
#include <vector>

#include <ggml-backend.h>

#include "bench/machine.h"
#include "bench/measure.h"
#include "bench/task.h"

namespace tq::tool {

enum class BenchKind { kAttention, kEncode };

struct CaseResult {
    HeadShape shape;
    int64_t depth = 0, batch = 0, n_layer = 0;
    int threads = 0;
    Measurement measurement;
    std::vector<std::string> notes;
};

struct BenchHeader {
    BenchKind kind = BenchKind::kAttention;
    Machine machine;
    ggml_backend_dev_t cpu = nullptr;  // null: no rivals
};

std::string header_text(const BenchHeader& header);
std::string case_text(const BenchHeader& header, const CaseResult& result);
// Least squares of time over depth, where a shape, batch and number of threads was measured at four depths or more.
std::string fits_text(const BenchHeader& header, const std::vector<CaseResult>& results);
std::string json_text(const BenchHeader& header, const std::vector<CaseResult>& results);

}  // namespace tq::tool
