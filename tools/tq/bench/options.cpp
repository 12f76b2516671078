#include "bench/options.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "bench/rival.h"

namespace tq::tool {
namespace {

constexpr int64_t kMaxDepth = int64_t{1} << 22, kMaxBatch = 4096, kMaxLayers = 1024;
constexpr int kMaxThreads = 512, kMaxRounds = 10000;

// The first option that does not hold ends the check; the rest is skipped.
class Checker {
  public:
    template <class Value, class Text, class Parse>
    void parse(const char* option, const std::vector<Text>& texts, std::vector<Value>& values, Parse parse) {
        for (const Text& text : texts) {
            if (!status_.ok()) return;
            Result<Value> value = parse(text);
            if (value.ok()) {
                values.push_back(value.value());
            } else {
                status_ = Status(Error::kInvalidArgument, fmt::format("{}: {}", option, value.status().message()));
            }
        }
    }

    template <class Number>
    void range(const char* option, const std::vector<Number>& values, Number low, Number high) {
        for (Number value : values) {
            if (status_.ok() && (value < low || value > high)) {
                status_ =
                    Status(Error::kInvalidArgument, fmt::format("{}: {} is not in {}..{}", option, value, low, high));
            }
        }
    }

    void fail(std::string message) {
        if (status_.ok()) status_ = Status(Error::kInvalidArgument, std::move(message));
    }

    const Status& status() const { return status_; }

  private:
    Status status_;
};

Result<int64_t> layers_of(const std::string& text) {
    if (text == "auto") return int64_t{0};
    int64_t n = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error == std::errc() && rest == text.data() + text.size() && n >= 1 && n <= kMaxLayers) return n;
    return Status(Error::kInvalidArgument,
                  fmt::format("--layers: '{}' is neither auto nor in 1..{}", text, kMaxLayers));
}

}  // namespace

Result<BenchPreset> parse_bench_preset(const std::string& text) {
    const Result<LayerPresets> presets = LayerPresets::parse(text);
    if (!presets.ok()) return presets.status();
    if (!presets->is_uniform()) {
        return Status(Error::kInvalidArgument,
                      fmt::format("'{}' differs by layer; one layer is measured: give each preset by itself", text));
    }
    return BenchPreset{presets->base(), presets->exact(), presets->label(), presets->describe()};
}

Result<BenchPlan> check_options(const BenchOptions& options, int cores) {
    BenchPlan plan;
    Checker check;
    check.parse("--shape", options.shapes, plan.shapes, parse_shape);
    check.parse("--preset", options.presets, plan.presets, parse_bench_preset);
    check.parse("--isa", options.isas, plan.isas, [](const std::string& name) { return select_isa(name); });
    if (options.rivals != std::vector<std::string>{"none"}) {
        check.parse("--rival", options.rivals, plan.rivals, rival_type);
    }
    if (plan.isas.empty() && check.status().ok()) {
        check.parse("TURBOQUANT_ISA", std::vector<int>{0}, plan.isas,
                    [](int) { return select_isa_from_environment(); });
    }
    plan.depths = options.depths;
    plan.batches = options.batches;
    plan.threads = options.threads.empty() ? std::vector<int>{cores} : options.threads;
    check.range<int64_t>("--depth", plan.depths, 1, kMaxDepth);
    check.range<int64_t>("--batch", plan.batches, 1, kMaxBatch);
    check.range<int>("--threads", plan.threads, 1, kMaxThreads);
    check.range<int>("--rounds", {options.rounds}, 1, kMaxRounds);
    const int64_t depth = *std::min_element(plan.depths.begin(), plan.depths.end());
    const int64_t batch = *std::max_element(plan.batches.begin(), plan.batches.end());
    if (batch > depth)
        check.fail(fmt::format("--batch: {} tokens are more than the {} cells of --depth", batch, depth));
    if (!(options.max_seconds >= 0)) check.fail("--max-seconds: must not be negative");
    const Result<int64_t> layers = layers_of(options.layers);
    if (!layers.ok()) check.fail(layers.status().message());
    if (!check.status().ok()) return check.status();
    plan.layers = layers.value();
    plan.rounds = options.rounds;
    plan.max_seconds = options.max_seconds;
    return plan;
}

}  // namespace tq::tool
