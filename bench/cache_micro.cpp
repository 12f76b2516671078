// A cache of 32 layers that holds a prompt of 8192 tokens: growing it, forking it, saving and loading it, beside
// copying as many bytes with memcpy.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <random>

#include "micro.h"
#include "turboquant/attention/plan.h"
#include "turboquant/cache/kv_cache.h"
#include "turboquant/cpu/engine.h"

namespace tq::bench {
namespace {

constexpr int64_t kCells = 8192, kLayers = 32, kBlocks = blocks_of_cells(kCells);

// 8 KV heads of 128; stream 0 holds the prompt. n_records: of all streams.
KvCache filled_cache(const char* preset, int64_t n_records) {
    KvCacheParams params;
    params.preset = must(Preset::parse(preset));
    params.head_dim_k = params.head_dim_v = 128;
    params.n_head_kv = 8;
    params.n_cells = 4 * kCells;
    params.n_stream = 2;
    params.n_layer = kLayers;
    params.n_records = n_records;
    KvCache cache = must(KvCache::create(params, cpu_engine(available_isas().back())));
    const std::vector<float> rows = gaussian(64 * 1024, 1);
    for (int64_t cell = 0; cell < kCells; cell += 64) {
        if (!cache.begin_append(0, 64).ok()) std::abort();
        for (int64_t item = 0; item < cache.n_store_items(); ++item) cache.store(item, rows.data(), rows.data(), 0);
    }
    return cache;
}

uint8_t* aligned(std::vector<uint8_t>& memory) {
    void* at = memory.data();
    size_t space = memory.size();
    return static_cast<uint8_t*>(std::align(kRecordAlignment, 1, at, space));
}

size_t bytes_of_prompt(const KvCache& cache) {
    const size_t block = cache.keys().codec->format().block_bytes() + cache.values().codec->format().block_bytes();
    return block * static_cast<size_t>(kBlocks * kLayers);
}

// The rival of all below: the prompt's bytes into memory that is there, and into fresh memory.
void copy_bytes(benchmark::State& state, const char* preset, bool fresh) {
    const size_t bytes = bytes_of_prompt(filled_cache(preset, kBlocks));
    const std::vector<uint8_t> from(bytes, 1);
    std::vector<uint8_t> to(bytes);
    for (auto _ : state) {
        if (fresh) std::vector<uint8_t>().swap(to), to.reserve(bytes);
        std::memcpy(to.data(), from.data(), bytes);
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(static_cast<int64_t>(bytes) * state.iterations());
}

void grow(benchmark::State& state, const char* preset) {
    for (auto _ : state) {
        state.PauseTiming();
        KvCache cache = filled_cache(preset, kBlocks);
        state.ResumeTiming();
        if (!cache.grow(2 * kBlocks).ok()) std::abort();
        state.PauseTiming();
        state.SetBytesProcessed(static_cast<int64_t>(bytes_of_prompt(cache)) * state.iterations());
        { const KvCache gone = std::move(cache); }
        state.ResumeTiming();
    }
}

// All blocks are shared; the first write to each copies it.
void fork(benchmark::State& state, const char* preset) {
    KvCache cache = filled_cache(preset, 2 * kBlocks);
    for (auto _ : state) {
        if (!cache.fork(0, 1, kCells).ok()) std::abort();
        state.PauseTiming();
        if (!cache.truncate(1, 0).ok()) std::abort();
        state.ResumeTiming();
    }
}

void fork_and_copy(benchmark::State& state, const char* preset) {
    KvCache cache = filled_cache(preset, 2 * kBlocks);
    for (auto _ : state) {
        if (!cache.fork(0, 1, kCells).ok() || !cache.begin(1, 0, kCells).ok()) std::abort();
        state.PauseTiming();
        if (!cache.truncate(1, 0).ok()) std::abort();
        state.ResumeTiming();
    }
    state.SetBytesProcessed(static_cast<int64_t>(bytes_of_prompt(cache)) * state.iterations());
}

void save(benchmark::State& state, const char* preset) {
    KvCache cache = filled_cache(preset, kBlocks);
    for (auto _ : state) benchmark::DoNotOptimize(cache.save(0).data());
    state.SetBytesProcessed(static_cast<int64_t>(bytes_of_prompt(cache)) * state.iterations());
}

void load(benchmark::State& state, const char* preset) {
    KvCache cache = filled_cache(preset, 2 * kBlocks);
    const std::vector<uint8_t> saved = cache.save(0);
    for (auto _ : state)
        if (!cache.load(1, saved).ok()) std::abort();
    state.SetBytesProcessed(static_cast<int64_t>(bytes_of_prompt(cache)) * state.iterations());
}

// One token's attention, 32 query heads, over one layer after another: their records one behind another, or in random
// order under a block table. On one thread, from memory.
void attend(benchmark::State& state, const char* preset, bool shuffled) {
    const KvCache cache = filled_cache(preset, kBlocks);
    const Engine engine = cpu_engine(available_isas().back());
    std::mt19937 random(1);
    std::vector<int32_t> table(kBlocks);
    std::iota(table.begin(), table.end(), 0);
    if (shuffled) std::shuffle(table.begin(), table.end(), random);
    const auto records_of = [&](const PackedTensor& tensor) {
        const size_t stride = tensor.codec->format().block_bytes();
        std::vector<std::vector<uint8_t>> layers(kLayers, std::vector<uint8_t>((kBlocks + 1) * stride));
        for (std::vector<uint8_t>& layer : layers)
            for (int64_t block = 0; block < kBlocks; ++block)
                std::memcpy(aligned(layer) + table[block] * stride, tensor.blocks(0).at(block), stride);
        return layers;
    };
    std::vector<std::vector<uint8_t>> k = records_of(cache.keys()), v = records_of(cache.values());
    AttentionShape shape;
    shape.head_dim_k = shape.head_dim_v = 128;
    shape.n_head = 32;
    shape.n_head_kv = 8;
    shape.n_tokens = 1;
    shape.n_kv = kCells;
    shape.scale = 0.1f;
    const std::vector<float> q = gaussian(32 * 128, 2);
    std::vector<float> out(q.size());
    AttentionInputs in;
    in.q = q.data();
    in.out = out.data();
    in.q_head_stride = in.out_head_stride = 128 * sizeof(float);
    const AttentionPlan plan = must(AttentionPlan::create(shape, *cache.keys().codec, *cache.values().codec, engine));
    std::vector<uint8_t> workspace(plan.workspace_bytes() + kRecordAlignment);
    for (auto _ : state) {
        for (int64_t layer = 0; layer < kLayers; ++layer) {
            const int32_t* blocks = shuffled ? table.data() : nullptr;
            in.k = {cache.keys().codec, aligned(k[layer]), kBlocks, kCells, 1, blocks};
            in.v = {cache.values().codec, aligned(v[layer]), kBlocks, kCells, 1, blocks};
            if (!plan.bind(in).ok()) std::abort();
            plan.run_all(in, aligned(workspace));
        }
    }
}

}  // namespace

void register_cache() {
    for (const char* preset : {"k4v4", "k4cv4"}) {
        const auto add = [&](const char* what, auto fn) {
            const std::string name = std::string("cache/") + preset + "/" + what;
            benchmark::RegisterBenchmark(name.c_str(), fn)->Unit(benchmark::kMillisecond)->Iterations(5);
        };
        add("memcpy", [=](benchmark::State& s) { copy_bytes(s, preset, false); });
        add("memcpy-to-fresh-memory", [=](benchmark::State& s) { copy_bytes(s, preset, true); });
        add("grow", [=](benchmark::State& s) { grow(s, preset); });
        add("fork", [=](benchmark::State& s) { fork(s, preset); });
        add("fork-and-copy", [=](benchmark::State& s) { fork_and_copy(s, preset); });
        add("save", [=](benchmark::State& s) { save(s, preset); });
        add("load", [=](benchmark::State& s) { load(s, preset); });
        add("attend", [=](benchmark::State& s) { attend(s, preset, false); });
        add("attend-paged", [=](benchmark::State& s) { attend(s, preset, true); });
    }
}

}  // namespace tq::bench
