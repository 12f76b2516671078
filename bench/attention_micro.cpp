// Fused attention: decoding, small batches and prefill.
#include <cmath>
#include <memory>
#include <new>

#include "micro.h"
#include "turboquant/attention/plan.h"
#include "turboquant/cache/kv_cache.h"
#include "turboquant/cpu/engine.h"

namespace tq::bench {
namespace {

struct Case {
    int n_head, n_head_kv, head_dim;
    const char* preset;
    int64_t n_kv, n_tokens;

    std::string name() const {
        return std::to_string(n_head) + ":" + std::to_string(n_head_kv) + ":" + std::to_string(head_dim) + "/" +
               preset + "/kv:" + std::to_string(n_kv) + "/batch:" + std::to_string(n_tokens);
    }
};

struct AlignedDelete {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
};

// A filled cache, its plan and everything that a run needs.
class Problem {
  public:
    Problem(const Case& c, Isa isa) : cache_(filled_cache(c, isa)), plan_(make_plan(c, isa)) {
        q_ = gaussian(c.n_tokens * c.n_head * c.head_dim, 1);
        out_.resize(q_.size());
        workspace_.reset(new (std::align_val_t{64}) std::byte[plan_.workspace_bytes()]);
        const size_t head = sizeof(float) * c.head_dim;
        in_.q = q_.data();
        in_.q_head_stride = head;
        in_.q_token_stride = head * c.n_head;
        in_.k = cache_.keys();
        in_.v = cache_.values();
        in_.out = out_.data();
        in_.out_head_stride = head;
        in_.out_token_stride = head * c.n_head;
    }
    Problem(const Problem&) = delete;
    Problem& operator=(const Problem&) = delete;

    void run() { plan_.run_all(in_, workspace_.get()); }
    size_t cache_bytes() const { return cache_.bytes(); }

  private:
    static KvCache filled_cache(const Case& c, Isa isa) {
        KvCacheParams params;
        params.preset = must(Preset::parse(c.preset));
        params.head_dim_k = params.head_dim_v = c.head_dim;
        params.n_head_kv = c.n_head_kv;
        params.n_cells = c.n_kv;
        KvCache cache = must(KvCache::create(params, cpu_engine(isa)));
        const std::vector<float> rows = gaussian(c.n_kv * c.n_head_kv * c.head_dim, 2);
        if (!cache.append(0, c.n_kv, rows.data(), rows.data()).ok()) std::abort();
        return cache;
    }

    AttentionPlan make_plan(const Case& c, Isa isa) const {
        AttentionShape s;
        s.head_dim_k = s.head_dim_v = c.head_dim;
        s.n_head = c.n_head;
        s.n_head_kv = c.n_head_kv;
        s.n_tokens = c.n_tokens;
        s.n_kv = c.n_kv;
        s.scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
        return must(AttentionPlan::create(s, *cache_.keys().codec, *cache_.values().codec, cpu_engine(isa)));
    }

    KvCache cache_;
    AttentionPlan plan_;
    std::vector<float> q_, out_;
    std::unique_ptr<std::byte[], AlignedDelete> workspace_;
    AttentionInputs in_;
};

void run_case(benchmark::State& state, const Case& c, Isa isa) {
    Problem problem(c, isa);
    for (auto _ : state) problem.run();
    state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(problem.cache_bytes()));
    // (query head, cell) pairs a second
    state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * c.n_tokens * c.n_head * c.n_kv);
}

constexpr Case kCases[] = {
    // decoding, by shape
    {9, 3, 64, "k4v4", 4096, 1},
    {32, 8, 128, "k4v4", 2048, 1},
    {64, 8, 128, "k4v4", 2048, 1},
    {4, 1, 256, "k4v4", 4096, 1},
    {32, 32, 128, "k4v4", 512, 1},
    // decoding, by width
    {32, 8, 128, "k2v2", 2048, 1},
    {32, 8, 128, "k3v3", 2048, 1},
    {32, 8, 128, "k5v5", 2048, 1},
    {32, 8, 128, "k6v6", 2048, 1},
    {32, 8, 128, "k8v4", 2048, 1},
    {32, 8, 128, "k8v8", 2048, 1},
    // centers and trellis codes
    {32, 8, 128, "k4cv4", 2048, 1},
    {32, 8, 128, "k3tv3t", 2048, 1},
    {32, 8, 128, "k4tv4t", 2048, 1},
    {32, 8, 128, "k5tv5t", 2048, 1},
    // small batches
    {32, 8, 128, "k4v4", 2048, 2},
    {32, 8, 128, "k4v4", 2048, 4},
    {32, 8, 128, "k4v4", 2048, 8},
    {32, 8, 128, "k4v4", 2048, 16},
    // prefill
    {9, 3, 64, "k4v4", 2048, 128},
    {32, 8, 128, "k4v4", 1024, 128},
};

}  // namespace

void register_attention() {
    for (const Case& c : kCases) {
        for_each_isa("attention", c.name(), [c](benchmark::State& state, Isa isa) { run_case(state, c, isa); });
    }
}

}  // namespace tq::bench
