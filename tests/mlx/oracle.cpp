// libturboquant without MLX, for tests to compare with: a KvCache and AttentionPlan on one thread and the scalar
// instruction set, as functions of C that Python's ctypes can call. They return 0, or set what oracle_error() says.
#include <string>
#include <vector>

#include "turboquant/attention/plan.h"
#include "turboquant/cache/kv_cache.h"
#include "turboquant/cpu/engine.h"
#include "turboquant/format/layer_presets.h"

namespace {

std::string error;

int result_of(const tq::Status& status) {
    if (!status.ok()) error = status.message();
    return status.ok() ? 0 : 1;
}

struct Oracle {
    tq::Engine engine;
    tq::KvCache cache;
};

tq::Result<tq::KvCache> make_cache(const char* presets, int n_head_kv, int head_dim_k, int head_dim_v, int64_t n_cells,
                                   int64_t n_stream, const tq::Engine& engine) {
    auto parsed = tq::LayerPresets::parse(presets);
    if (!parsed.ok()) return parsed.status();
    tq::KvCacheParams params;
    params.preset = parsed->base();
    params.exact = parsed->exact();
    params.head_dim_k = head_dim_k;
    params.head_dim_v = head_dim_v;
    params.n_head_kv = n_head_kv;
    params.n_cells = n_cells;
    params.n_stream = n_stream;
    return tq::KvCache::create(params, engine);
}

}  // namespace

extern "C" {

const char* oracle_error() {
    return error.c_str();
}

Oracle* oracle_create(const char* presets, int n_head_kv, int head_dim_k, int head_dim_v, int64_t n_cells,
                      int64_t n_stream) {
    const tq::Engine engine = tq::cpu_engine(tq::Isa::kScalar);
    auto cache = make_cache(presets, n_head_kv, head_dim_k, head_dim_v, n_cells, n_stream, engine);
    if (result_of(cache.status()) != 0) return nullptr;
    return new Oracle{engine, std::move(cache.value())};
}

void oracle_free(Oracle* oracle) {
    delete oracle;
}

// k and v: n rows of n_head_kv * head_dim floats.
int oracle_append(Oracle* oracle, int64_t stream, int64_t n, const float* k, const float* v) {
    return result_of(oracle->cache.append(stream, n, k, v));
}

int oracle_truncate(Oracle* oracle, int64_t stream, int64_t length) {
    return result_of(oracle->cache.truncate(stream, length));
}

int oracle_read(Oracle* oracle, int64_t stream, int64_t n, float* k, float* v) {
    return result_of(oracle->cache.read(stream, 0, n, k, v));
}

// q: (n_stream, n_head, n_tokens, head_dim_k) floats, out: (n_stream, n_head, n_tokens, head_dim_v). tokens: of each
// stream, the first of its n_tokens; they are the newest of its cells. mask: (n_stream, n_tokens, n_kv) halves or null,
// n_kv the longest stream's cells.
int oracle_attend(Oracle* oracle, int n_head, int64_t n_tokens, const int64_t* tokens, float scale, int causal,
                  int64_t window, const float* q, const uint16_t* mask, const float* sinks, float* out) {
    const tq::KvCache& cache = oracle->cache;
    tq::AttentionShape shape;
    shape.head_dim_k = cache.params().head_dim_k;
    shape.head_dim_v = cache.params().head_dim_v;
    shape.n_head = n_head;
    shape.n_head_kv = cache.params().n_head_kv;
    shape.n_tokens = n_tokens;
    shape.n_stream = cache.params().n_stream;
    std::vector<int64_t> lengths;
    for (int64_t stream = 0; stream < shape.n_stream; ++stream) {
        lengths.push_back(cache.length(stream));
        shape.n_kv = std::max(shape.n_kv, lengths.back());
    }
    shape.scale = scale;
    shape.causal = causal != 0;
    shape.window = window;
    shape.n_exact = cache.params().exact.n_per_query();
    auto plan = tq::AttentionPlan::create(shape, *cache.keys().codec, *cache.values().codec, oracle->engine);
    if (result_of(plan.status()) != 0) return 1;

    tq::AttentionInputs in;
    in.q = q;
    in.q_token_stride = sizeof(float) * shape.head_dim_k;
    in.q_head_stride = in.q_token_stride * n_tokens;
    in.q_stream_stride = in.q_head_stride * n_head;
    in.k = cache.keys();
    in.v = cache.values();
    in.n_kv_of_stream = lengths.data();
    in.n_tokens_of_stream = tokens;
    in.mask = mask;
    in.mask_token_stride = sizeof(uint16_t) * shape.n_kv;
    in.mask_stream_stride = in.mask_token_stride * n_tokens;
    in.exact_k = cache.exact_keys();
    in.exact_v = cache.exact_values();
    in.sinks = sinks;
    in.out = out;
    in.out_token_stride = sizeof(float) * shape.head_dim_v;
    in.out_head_stride = in.out_token_stride * n_tokens;
    in.out_stream_stride = in.out_head_stride * n_head;
    if (result_of(plan->bind(in)) != 0) return 1;
    std::vector<char> memory(plan->workspace_bytes() + 64);
    void* aligned = memory.data();
    size_t space = memory.size();
    plan->run_all(in, std::align(64, plan->workspace_bytes(), aligned, space));
    return 0;
}

}  // extern "C"
