// The library as another project uses it: encode rows, attend over them. docs/library.md shows its main lines.
#include <cmath>
#include <cstdio>
#include <vector>

#include "turboquant/attention/plan.h"
#include "turboquant/cache/kv_cache.h"
#include "turboquant/cpu/engine.h"

int main() {
    constexpr int kHeadDim = 64, kHeads = 4, kHeadsKv = 2, kCells = 100;
    const tq::Engine engine = tq::cpu_engine(tq::available_isas().back());

    tq::KvCacheParams params;
    params.preset = tq::Preset::parse("k4v4").value();
    params.head_dim_k = params.head_dim_v = kHeadDim;
    params.n_head_kv = kHeadsKv;
    params.n_cells = 256;
    tq::Result<tq::KvCache> cache = tq::KvCache::create(params, engine);
    if (!cache.ok()) return std::puts(cache.status().message().c_str()), 1;

    // All keys are the same, so that attention averages the values; their mean is (0, 1, 2, ...) / 64.
    const int width = kHeadsKv * kHeadDim;
    for (int cell = 0; cell < kCells; ++cell) {
        std::vector<float> k(width, 0.1f), v(width);
        for (int i = 0; i < width; ++i) v[i] = static_cast<float>(i % kHeadDim) / 64 + (cell % 2 ? 0.5f : -0.5f);
        if (tq::Status s = cache->append(0, 1, k.data(), v.data()); !s.ok()) return std::puts(s.message().c_str()), 1;
    }

    tq::AttentionShape shape;
    shape.head_dim_k = shape.head_dim_v = kHeadDim;
    shape.n_head = kHeads;
    shape.n_head_kv = kHeadsKv;
    shape.n_tokens = 1;
    shape.n_kv = cache->length(0);
    shape.scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
    auto plan = tq::AttentionPlan::create(shape, *cache->keys().codec, *cache->values().codec, engine);
    if (!plan.ok()) return std::puts(plan.status().message().c_str()), 1;

    std::vector<float> q(kHeads * kHeadDim, 0.3f), out(kHeads * kHeadDim);
    tq::AttentionInputs in;
    in.q = q.data();
    in.k = cache->keys();
    in.v = cache->values();
    in.out = out.data();
    in.q_head_stride = in.out_head_stride = kHeadDim * sizeof(float);
    in.q_token_stride = in.out_token_stride = q.size() * sizeof(float);
    struct alignas(64) Line {
        char bytes[64];
    };
    std::vector<Line> workspace(plan->workspace_bytes() / sizeof(Line) + 1);
    if (!plan->bind(in).ok()) return 1;
    plan->run_all(in, workspace.data());

    double squares = 0;
    for (int i = 0; i < kHeads * kHeadDim; ++i) squares += std::pow(out[i] - static_cast<float>(i % kHeadDim) / 64, 2);
    const double error = std::sqrt(squares / (kHeads * kHeadDim));
    std::printf("%zu bytes hold %d cells; rms error of the output %.3f\n", cache->bytes(), kCells, error);
    return error < 0.1 ? 0 : 1;
}
