#include "eval/eval.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include <fmt/format.h>

#include "bench/machine.h"
#include "cache_cost.h"
#include "eval/evaluation.h"
#include "eval/report.h"
#include "fail.h"
#include "file.h"

namespace tq::tool {
namespace {

// FNV-1a.
uint64_t hash(const std::string& text) {
    uint64_t value = 0xcbf29ce484222325u;
    for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return value;
}

// Names what results depend on, but the cache.
Result<std::string> subject_of(const EvalOptions& options, const std::string& text) {
    std::error_code ignored;
    std::string subject = fmt::format(
        "{} ({} bytes), text {:016x}, ctx {}, batch {}", std::filesystem::path(options.model).filename().string(),
        std::filesystem::file_size(options.model, ignored), hash(text), options.n_ctx, options.n_batch);
    if (options.calibration.empty()) return subject;
    const Result<std::string> calibration = read_file(options.calibration);
    if (!calibration.ok()) return calibration.status();
    return subject + fmt::format(", calibration {:016x}", hash(calibration.value()));
}

struct Progress {
    bool terminal = isatty(STDERR_FILENO) != 0;
    void operator()(const std::string& line) const {
        fmt::print(stderr, "{}{}{}", terminal ? "\r\033[K" : "", line, terminal ? "" : "\n");
    }
    void end() const {
        if (terminal) fmt::print(stderr, "\r\033[K");
    }
};

Result<std::vector<double>> bits_of(const std::vector<CacheChoice>& caches, const EvalOptions& options) {
    Result<CacheCosts> costs =
        CacheCosts::create(host_options(options), options.n_ctx, options.n_batch, options.n_batch);
    if (!costs.ok()) return costs.status();
    std::vector<double> bits;
    for (const CacheChoice& cache : caches) {
        const Result<CacheCost> cost = costs->cost(cache);
        if (!cost.ok()) return cost.status();
        bits.push_back(cost->bits_per_value);
    }
    return bits;
}

}  // namespace

Result<EvalReport> evaluate(const EvalOptions& given, const std::vector<CacheChoice>& caches) {
    EvalOptions options = given;
    if (options.n_threads == 0) options.n_threads = usable_cores();
    const Result<std::string> text = read_file(options.text);
    if (!text.ok()) return text.status();
    if (Status status = Host::check_survival(host_options(options)); !status.ok()) return status;
    const Result<std::vector<double>> bits = bits_of(caches, options);
    if (!bits.ok()) return bits.status();
    const Result<std::string> subject = subject_of(options, text.value());
    if (!subject.ok()) return subject.status();
    Result<Records> records = Records::open(options.state, subject.value());
    if (!records.ok()) return records.status();
    Result<Host> host = Host::create(host_options(options));
    if (!host.ok()) return host.status();
    const Progress progress;
    Evaluation evaluation(host.value(), options, caches, host->tokenize(text.value()), records.value(), progress);
    if (evaluation.n_chunks() == 0 && options.n_chunks > 0) {
        return Status(
            Error::kInvalidArgument,
            fmt::format("{}: too short for a chunk of {} tokens; take a smaller --ctx", options.text, options.n_ctx));
    }
    const Status status = evaluation.run();
    progress.end();
    if (!status.ok()) return status;
    return make_report(options, caches, bits.value(), evaluation.n_chunks(), records.value());
}

int run_eval(const EvalOptions& given) {
    const Result<std::vector<CacheChoice>> caches = check_eval_options(given);
    if (!caches.ok()) return fail(2, caches.status().message());
    const Result<EvalReport> report = evaluate(given, caches.value());
    if (!report.ok()) return fail(1, report.status().message());
    fmt::print("{}", given.json ? report_json(report.value()) : report_text(report.value()));
    return 0;
}

}  // namespace tq::tool
