#include "bench/bench.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <new>

#include <fmt/format.h>

#include "bench/packed.h"
#include "bench/rival.h"
#include "cpu_device.h"
#include "fail.h"

namespace tq::tool {
namespace {

constexpr size_t kCachesBeyond = 3;         // every contestant's layers together, in last-level caches
constexpr int64_t kComputeBoundBatch = 32;  // from here on where the bytes come from does not matter
constexpr int64_t kComputeBoundLayers = 2;
constexpr int64_t kMaxAutoLayers = 256;
constexpr size_t kMemoryCap = size_t{8} << 30;
constexpr size_t kLeastReadBytes = size_t{512} << 20, kMostReadBytes = size_t{2} << 30;

// One shape, depth, batch and number of threads: who takes part, with how many layers.
class Case {
  public:
    Case(const BenchPlan& plan, const BenchHeader& header, const HeadShape& shape, int64_t depth, int64_t batch)
        : plan_(plan), header_(header), task_(make_task(shape, depth, batch)) {
        result_.shape = shape;
        result_.depth = depth;
        result_.batch = batch;
        choose_rivals();
        result_.n_layer = task_.n_layer = plan.layers > 0 ? plan.layers : automatic_layers();
    }

    Result<CaseResult> run(ThreadTeam& team, ReadBandwidth& read, GgmlThreads* ggml) {
        result_.threads = team.size();
        std::vector<std::unique_ptr<Contestant>> contestants;
        for (const BenchPreset& preset : plan_.presets) {
            for (Isa isa : plan_.isas) {
                auto ours = header_.kind == BenchKind::kAttention ? packed_attention(task_, preset, isa, team)
                                                                  : packed_encode(task_, preset, isa, team);
                if (!ours.ok()) return ours.status();
                contestants.push_back(std::move(ours.value()));
            }
        }
        for (ggml_type type : rivals_) {
            contestants.push_back(header_.kind == BenchKind::kAttention ? ggml_attention(task_, type, *ggml)
                                                                        : ggml_encode(task_, type, *ggml));
        }
        // Encoding does not read memory; what limits it is computing.
        ReadBandwidth* ceiling = header_.kind == BenchKind::kAttention ? &read : nullptr;
        result_.measurement = measure(contestants, ceiling, task_.n_layer, {plan_.rounds, plan_.max_seconds});
        return std::move(result_);
    }

  private:
    void choose_rivals() {
        if (!header_.cpu) return;
        for (ggml_type type : plan_.rivals) {
            const std::string reason = rival_reason(task_.shape, type);
            if (reason.empty()) {
                rivals_.push_back(type);
            } else {
                result_.notes.push_back(reason);
            }
        }
    }

    // In a model a layer's cache has left the CPU's caches when its turn comes again; here as well.
    int64_t automatic_layers() {
        std::vector<size_t> bytes;
        for (const BenchPreset& preset : plan_.presets) {
            for (size_t i = 0; i < plan_.isas.size(); ++i) bytes.push_back(packed_layer_bytes(task_, preset));
        }
        for (ggml_type type : rivals_) bytes.push_back(rival_layer_bytes(task_, type));
        size_t sum = 0;
        for (size_t each : bytes) sum += each;
        const size_t least = *std::min_element(bytes.begin(), bytes.end());
        const size_t wanted = kCachesBeyond * header_.machine.l3_bytes;
        int64_t n = static_cast<int64_t>((wanted + least - 1) / least);
        if (task_.batch >= kComputeBoundBatch) n = std::min(n, kComputeBoundLayers);
        const size_t memory = std::min(kMemoryCap, header_.machine.available_bytes / 2);
        const int64_t fitting = std::max<int64_t>(1, static_cast<int64_t>(memory / sum));
        if (n > fitting) result_.notes.push_back(fmt::format("memory is enough for {} of {} layers", fitting, n));
        return std::min({n, fitting, kMaxAutoLayers});
    }

    const BenchPlan& plan_;
    const BenchHeader& header_;
    Task task_;
    std::vector<ggml_type> rivals_;
    CaseResult result_;
};

class Run {
  public:
    Run(const BenchPlan& plan, const BenchHeader& header, bool json) : plan_(plan), header_(header), json_(json) {}

    int run() {
        if (!json_) print(header_text(header_));
        for (int threads : plan_.threads) {
            if (Status status = run_threads(threads); !status.ok()) return fail(1, status.message());
        }
        print(json_ ? json_text(header_, results_) : fits_text(header_, results_));
        return 0;
    }

  private:
    Status run_threads(int threads) {
        ThreadTeam team(threads);
        ReadBandwidth read(read_bytes(), team);
        std::unique_ptr<GgmlThreads> ggml;
        if (header_.cpu) ggml = std::make_unique<GgmlThreads>(header_.cpu, threads);
        for (const HeadShape& shape : plan_.shapes) {
            for (int64_t batch : plan_.batches) {
                for (int64_t depth : plan_.depths) {
                    Result<CaseResult> result = Case(plan_, header_, shape, depth, batch).run(team, read, ggml.get());
                    if (!result.ok()) return result.status();
                    results_.push_back(std::move(result.value()));
                    if (!json_) print(case_text(header_, results_.back()));
                }
            }
        }
        return {};
    }

    size_t read_bytes() const {
        if (header_.kind == BenchKind::kEncode) return 64;
        return std::clamp(8 * header_.machine.l3_bytes, kLeastReadBytes, kMostReadBytes);
    }

    static void print(const std::string& text) {
        fmt::print("{}", text);
        std::fflush(stdout);
    }

    const BenchPlan& plan_;
    const BenchHeader& header_;
    bool json_;
    std::vector<CaseResult> results_;
};

}  // namespace

int run_bench(BenchKind kind, const BenchOptions& options) {
    BenchHeader header;
    header.kind = kind;
    header.machine = this_machine();
    const Result<BenchPlan> plan = check_options(options, header.machine.cores);
    if (!plan.ok()) return fail(2, plan.status().message());
    if (!plan->rivals.empty()) {
        const Result<ggml_backend_dev_t> cpu = cpu_device();
        if (!cpu.ok()) return fail(1, cpu.status().message());
        header.cpu = cpu.value();
    }
    try {
        return Run(plan.value(), header, options.json).run();
    } catch (const std::bad_alloc&) {
        return fail(1, "not enough memory; fewer --layers or a smaller --depth takes less");
    }
}

}  // namespace tq::tool
