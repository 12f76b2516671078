// A cache of 32 layers that holds a prompt of 8192 tokens: growing it, forking it, saving and loading it, beside
// copying as many bytes with memcpy.
#include <cstring>
#include <new>

#include "micro.h"
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
    }
}

}  // namespace tq::bench
