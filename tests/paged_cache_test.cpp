// Caches whose streams share records: forks, growth, snapshots; layers; and attention over block tables in any order.
#include <cstring>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/support/attention_problem.h"
#include "turboquant/cache/kv_cache.h"

namespace tq::test {
namespace {

constexpr int kHeadDim = 64, kHeads = 2, kWidth = kHeadDim * kHeads;

KvCacheParams params_of(const char* preset, int64_t n_records = 0, int64_t n_layer = 1) {
    KvCacheParams params;
    params.preset = Preset::parse(preset).value();
    params.exact = exact_cells_of_name(preset);
    params.head_dim_k = params.head_dim_v = kHeadDim;
    params.n_head_kv = kHeads;
    params.n_cells = 640;
    params.n_stream = 4;
    params.n_records = n_records;
    params.n_layer = n_layer;
    return params;
}

KvCache make_cache(const KvCacheParams& params) {
    return std::move(KvCache::create(params, cpu_engine(available_isas().back())).value());
}

std::vector<float> rows_of(int64_t n, uint64_t seed) {
    Random random(seed);
    std::vector<float> rows = random.normals(n * kWidth);
    for (float& x : rows) x += 1;
    return rows;
}

Status append(KvCache& cache, int64_t stream, int64_t n, uint64_t seed) {
    return cache.append(stream, n, rows_of(n, seed).data(), rows_of(n, seed + 1).data());
}

struct Rows {
    std::vector<float> k, v;
    bool operator==(const Rows&) const = default;
};
Rows read(const KvCache& cache, int64_t stream, int64_t layer = 0) {
    const int64_t n = cache.length(stream);
    Rows rows{std::vector<float>(n * kWidth), std::vector<float>(n * kWidth)};
    EXPECT_TRUE(cache.read(stream, 0, n, rows.k.data(), rows.v.data(), layer).ok());
    return rows;
}

// One query over the whole stream.
std::vector<float> attend(const KvCache& cache, int64_t stream, int64_t layer = 0) {
    const Engine engine = cpu_engine(available_isas().back());
    AttentionShape shape;
    shape.head_dim_k = shape.head_dim_v = kHeadDim;
    shape.n_head = shape.n_head_kv = kHeads;
    shape.n_tokens = 1;
    shape.n_kv = cache.length(stream);
    shape.scale = 0.125f;
    if (cache.exact_keys(layer)) shape.n_exact = cache.exact_keys(layer)->cells().n_per_query();
    const AttentionPlan plan =
        AttentionPlan::create(shape, *cache.keys(layer).codec, *cache.values(layer).codec, engine).value();
    const std::vector<float> q = rows_of(1, 99);
    std::vector<float> out(kWidth);
    AttentionInputs in;
    in.q = q.data();
    in.k = cache.keys(layer);
    in.v = cache.values(layer);
    in.k_first_stream = in.v_first_stream = stream;
    in.exact_k = cache.exact_keys(layer);
    in.exact_v = cache.exact_values(layer);
    in.out = out.data();
    in.q_head_stride = in.out_head_stride = kHeadDim * sizeof(float);
    EXPECT_TRUE(plan.bind(in).ok());
    Workspace workspace(plan.workspace_bytes());
    plan.run_all(in, workspace.data());
    return out;
}

class PagedCache : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Presets, PagedCache, testing::Values("k4v4", "k4cv4", "fast", "balanced", "k2cv8"));

// A fork goes on as the stream it came from would have, and neither sees what the other writes.
TEST_P(PagedCache, ForksGoOnAsTheOriginal) {
    for (int64_t prefix : {64, 130, 300}) {
        KvCache cache = make_cache(params_of(GetParam())), plain = make_cache(params_of(GetParam()));
        ASSERT_TRUE(append(cache, 0, 300, 1).ok());
        ASSERT_TRUE(append(plain, 0, 300, 1).ok());
        const Rows before = read(cache, 0);
        for (int64_t to : {1, 2, 3}) ASSERT_TRUE(cache.fork(0, to, prefix).ok());
        EXPECT_EQ(cache.length(2), prefix);
        ASSERT_TRUE(plain.truncate(0, prefix).ok());
        EXPECT_EQ(read(cache, 2), read(plain, 0));
        if (prefix == 300) {
            EXPECT_TRUE(same_bits(attend(cache, 2), attend(cache, 0)));
        }
        ASSERT_TRUE(append(cache, 2, 70, 5).ok());
        ASSERT_TRUE(append(plain, 0, 70, 5).ok());
        EXPECT_EQ(read(cache, 2), read(plain, 0)) << prefix;
        if (prefix == 300) {
            EXPECT_TRUE(same_bits(attend(cache, 2), attend(plain, 0)));
        }
        EXPECT_EQ(read(cache, 0), before);
        ASSERT_TRUE(append(cache, 0, 70, 7).ok());
        EXPECT_EQ(read(cache, 2), read(plain, 0));
        EXPECT_EQ(cache.length(1), prefix);
    }
}

TEST_P(PagedCache, ForksCostTheirTailsAlone) {
    KvCache cache = make_cache(params_of(GetParam(), 12));
    ASSERT_TRUE(append(cache, 0, 4 * 64 + 10, 1).ok());
    EXPECT_EQ(cache.n_free_records(), 12 - 5);
    for (int64_t to : {1, 2, 3}) ASSERT_TRUE(cache.fork(0, to, cache.length(0)).ok());
    EXPECT_EQ(cache.n_free_records(), 12 - 5 - 3);
    for (int64_t to : {1, 2, 3}) ASSERT_TRUE(append(cache, to, 20, 3).ok());
    EXPECT_EQ(cache.n_free_records(), 12 - 5 - 3);
}

// What finds no record is refused as a whole; growing helps.
TEST_P(PagedCache, GrowthKeepsEverythingAndMakesRoom) {
    KvCache cache = make_cache(params_of(GetParam(), 3)), large = make_cache(params_of(GetParam()));
    ASSERT_TRUE(append(cache, 0, 150, 1).ok());
    ASSERT_TRUE(append(large, 0, 150, 1).ok());
    const Rows before = read(cache, 0);
    EXPECT_EQ(append(cache, 1, 1, 3).error(), Error::kOutOfMemory);
    EXPECT_EQ(append(cache, 0, 64, 3).error(), Error::kOutOfMemory);
    EXPECT_EQ(cache.fork(0, 1, 150).error(), Error::kOutOfMemory);
    EXPECT_EQ(cache.length(0), 150);
    EXPECT_EQ(cache.length(1), 0);
    EXPECT_EQ(read(cache, 0), before);
    const size_t bytes = cache.bytes();
    ASSERT_TRUE(cache.grow(9).ok());
    EXPECT_EQ(cache.n_records(), 9);
    EXPECT_GT(cache.bytes(), bytes);
    EXPECT_EQ(read(cache, 0), before);
    ASSERT_TRUE(append(cache, 0, 64, 3).ok());
    ASSERT_TRUE(append(large, 0, 64, 3).ok());
    EXPECT_EQ(read(cache, 0), read(large, 0));
    EXPECT_TRUE(same_bits(attend(cache, 0), attend(large, 0)));
    EXPECT_EQ(cache.grow(int64_t{1} << 40).error(), Error::kInvalidArgument);
}

TEST_P(PagedCache, LoadedStreamsAreThoseThatWereSaved) {
    KvCache cache = make_cache(params_of(GetParam())), other = make_cache(params_of(GetParam()));
    ASSERT_TRUE(append(cache, 0, 333, 1).ok());
    ASSERT_TRUE(append(other, 1, 100, 9).ok());
    const std::vector<uint8_t> saved = cache.save(0);
    ASSERT_TRUE(other.load(1, saved).ok());
    EXPECT_EQ(read(other, 1), read(cache, 0));
    EXPECT_EQ(other.save(1), saved);
    EXPECT_TRUE(same_bits(attend(other, 1), attend(cache, 0)));
    ASSERT_TRUE(append(other, 1, 50, 3).ok());
    ASSERT_TRUE(append(cache, 0, 50, 3).ok());
    EXPECT_TRUE(same_bits(attend(other, 1), attend(cache, 0)));
    EXPECT_EQ(cache.save(-1), std::vector<uint8_t>());
}

// Cut off, longer, or with any byte changed: refused with a reason, or rows that are finite. Never a crash.
TEST_P(PagedCache, DamagedSnapshotsLoseNothing) {
    KvCache cache = make_cache(params_of(GetParam()));
    ASSERT_TRUE(append(cache, 0, 100, 1).ok());
    ASSERT_TRUE(append(cache, 1, 30, 5).ok());
    const std::vector<uint8_t> saved = cache.save(0);
    const Rows before = read(cache, 1);
    for (size_t size : {size_t{0}, size_t{10}, size_t{95}, size_t{96}, saved.size() - 1, saved.size() + 1}) {
        std::vector<uint8_t> cut = saved;
        cut.resize(size);
        const Status status = cache.load(1, cut);
        EXPECT_EQ(status.error(), Error::kInvalidArgument) << size;
        EXPECT_EQ(read(cache, 1), before) << size;
    }
    Random random(3);
    for (size_t at = 0; at < saved.size(); at += at < 110 ? 1 : 97) {
        std::vector<uint8_t> damaged = saved;
        damaged[at] ^= static_cast<uint8_t>(1 + random.below(255));
        const Status status = cache.load(1, damaged);
        if (status.ok()) {
            for (float x : read(cache, 1).k) ASSERT_TRUE(std::isfinite(x)) << at;
            for (float x : attend(cache, 1)) ASSERT_FALSE(std::isinf(x)) << at;
        } else {
            EXPECT_FALSE(status.message().empty()) << at;
        }
    }
}

TEST(Snapshots, OfOtherCachesAreRefusedByName) {
    KvCache cache = make_cache(params_of("k4cv4"));
    ASSERT_TRUE(append(cache, 0, 100, 1).ok());
    const std::vector<uint8_t> saved = cache.save(0);
    const auto refused = [&](const KvCacheParams& params, const char* reason) {
        KvCache other = make_cache(params);
        const Status status = other.load(0, saved);
        EXPECT_FALSE(status.ok());
        EXPECT_NE(status.message().find(reason), std::string::npos) << status.message();
        EXPECT_EQ(other.length(0), 0);
    };
    refused(params_of("k5cv4"), "bits of keys is 4, here 5");
    refused(params_of("k4v4"), "the coding of keys is 2, here 0");
    refused(params_of("k4cv8"), "bits of values is 4, here 8");
    refused(params_of("k4cv4", 0, 2), "1 layers, here are 2");
    KvCacheParams wide = params_of("k4cv4");
    wide.head_dim_k = 2 * kHeadDim, wide.n_head_kv = kHeads / 2, wide.head_dim_v = 2 * kHeadDim;
    refused(wide, "head_dim of keys is 64, here 128");
    KvCacheParams calibrated = params_of("k4cv4");
    calibrated.key_scales.assign(kWidth, 2.0f);
    refused(calibrated, "the fingerprint of keys differs: another calibration");
    KvCacheParams small = params_of("k4cv4");
    small.n_cells = 64;
    refused(small, "100 cells, a stream at most 64");
    refused(params_of("k4cv4", 1), "2 wanted, 1 free");
}

// All layers are written to in any order of items, and each is a cache of its own.
TEST(Layers, AreCachesOfTheirOwn) {
    for (const char* preset : {"k4v4", "fast", "balanced"}) {
        constexpr int64_t kLayers = 3;
        KvCache layers = make_cache(params_of(preset, 0, kLayers));
        EXPECT_EQ(layers.write(0, 0, 1, nullptr, nullptr).error(), Error::kInvalidArgument);
        std::vector<KvCache> single;
        for (int i = 0; i < kLayers; ++i) single.push_back(make_cache(params_of(preset)));
        for (int step = 0; step < 4; ++step) {
            const int64_t n = step == 0 ? 200 : 1 + step;
            ASSERT_TRUE(layers.begin_append(1, n).ok());
            for (int64_t layer = 0; layer < kLayers; ++layer) {
                const uint64_t seed = 10 * step + 100 * layer;
                const std::vector<float> k = rows_of(n, seed), v = rows_of(n, seed + 1);
                for (int64_t item = layers.n_store_items() - 1; item >= 0; --item)
                    layers.store(item, k.data(), v.data(), layer);
                ASSERT_TRUE(append(single[layer], 1, n, seed).ok());
            }
            for (int64_t layer = 0; layer < kLayers; ++layer) {
                EXPECT_EQ(read(layers, 1, layer), read(single[layer], 1)) << preset;
                EXPECT_TRUE(same_bits(attend(layers, 1, layer), attend(single[layer], 1))) << preset;
            }
        }
        ASSERT_TRUE(layers.fork(1, 0, layers.length(1)).ok());
        for (int64_t layer = 0; layer < kLayers; ++layer)
            EXPECT_TRUE(same_bits(attend(layers, 0, layer), attend(single[layer], 1))) << preset;
    }
}

// ---- attention over block tables ------------------------------------------------------------------------------------

// A tensor's records in random order among others, and the table that finds them.
struct Shuffled {
    Shuffled(const PackedRows& rows, Random& random) : records(2 * rows.bytes.size()), table(rows.n_records()) {
        const size_t stride = rows.codec.format().block_bytes();
        std::vector<int32_t> places(2 * table.size());
        std::iota(places.begin(), places.end(), 0);
        shuffle(places, random);
        for (uint8_t& byte : records) byte = static_cast<uint8_t>(random.next());
        for (size_t i = 0; i < table.size(); ++i) {
            table[i] = places[i];
            std::memcpy(records.data() + static_cast<size_t>(table[i]) * stride, rows.bytes.data() + i * stride,
                        stride);
        }
    }
    void put(PackedTensor& tensor) const {
        tensor.records = records.data();
        tensor.n_records = 2 * std::ssize(table);
        tensor.block_table = table.data();
    }
    Bytes records;
    std::vector<int32_t> table;
};

class PagedAttention : public testing::TestWithParam<AttentionCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, PagedAttention,
                         testing::Values(AttentionCase{64, 64, 3, 3, 1, 700, 4, 4, Mask::kNone},
                                         AttentionCase{128, 128, 4, 2, 7, 1100, centered(4), 4, Mask::kCausal, 2, 1},
                                         AttentionCase{80, 48, 2, 3, 40, 300, centered(trellis(4)), trellis(4),
                                                       Mask::kHoles},
                                         AttentionCase{256, 256, 1, 1, 2, 650, 8, 8, Mask::kCausal},
                                         AttentionCase{64, 64, 2, 2, 3, 1300, 3, 5, Mask::kSlidingWindow, 2}));

TEST_P(PagedAttention, RecordsInAnyOrderGiveTheSameBits) {
    AttentionProblem problem(GetParam());
    const std::vector<float> expected = problem.run(available_isas().back());
    Random random(7);
    for (int round = 0; round < 3; ++round) {
        const Shuffled k(problem.keys(), random), v(problem.values(), random);
        const auto paged = [&](AttentionShape&, AttentionInputs& in) { k.put(in.k), v.put(in.v); };
        for (int n_threads : {1, 4})
            EXPECT_TRUE(same_bits(
                problem.run(available_isas().back(), n_threads, AttentionProblem::run_in_order, paged), expected));
    }
}

TEST(PagedAttentionBind, RecordsThatAreNotThereAreRefused) {
    AttentionProblem problem({64, 64, 1, 1, 1, 200});
    Random random(1);
    Shuffled k(problem.keys(), random), v(problem.values(), random);
    std::vector<float> out = problem.empty_output();
    const RowCodec &keys = problem.keys().codec, &values = problem.values().codec;
    const AttentionPlan plan = AttentionPlan::create(problem.shape(), keys, values, cpu_engine(Isa::kScalar)).value();
    AttentionInputs in = problem.inputs(keys, values, out);
    k.put(in.k), v.put(in.v);
    EXPECT_TRUE(plan.bind(in).ok());
    for (int32_t record : {-1, static_cast<int32_t>(in.v.n_records), INT32_MAX, INT32_MIN}) {
        Shuffled wrong = v;
        wrong.table[2] = record;
        wrong.put(in.v);
        const Status status = plan.bind(in);
        EXPECT_EQ(status.error(), Error::kInvalidArgument);
        EXPECT_NE(status.message().find("record " + std::to_string(record) + " for block 2"), std::string::npos);
    }
    in = problem.inputs(keys, values, out);
    in.k.n_records = 2;
    EXPECT_NE(plan.bind(in).message().find("has 2 records"), std::string::npos);
}

}  // namespace
}  // namespace tq::test
