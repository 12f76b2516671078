// What is packed is known to the buffer that a tensor lies in: caches in other buffers, caches of other types, dry
// runs, tensors that a host has rebuilt, and ops that read a packed cache as if it were not packed.
#include <algorithm>
#include <cstring>
#include <random>

#include <ggml-alloc.h>

#include "support/attention_graph.h"
#include "support/host.h"

namespace tq::e2e {
namespace {

ggml_backend_buffer_type_t cpu_memory() {
    return ggml_backend_get_default_buffer_type(cpu_backend());
}
ggml_backend_buffer_type_t plugin_memory() {
    return ggml_backend_get_default_buffer_type(plugin_backend());
}

ggml_context_ptr small_context() {
    return ggml_context_ptr(ggml_init({ggml_tensor_overhead() * 64, nullptr, true}));
}

// ---- whose buffer ---------------------------------------------------------------------------------------------------

TEST(Placement, CacheInCpuMemoryIsOrdinary) {
    const Shape shape{.n_stream = 2, .causal_holes = true};
    Layer here(plugin_backend(), shape, cpu_memory(), cpu_memory()), there(cpu_backend(), shape);
    here.fill(1);
    there.fill(1);
    EXPECT_EQ(here.read(here.keys()), there.read(there.keys()));
    const Floats expected = there.attend(7);
    EXPECT_EQ(here.attend(7), expected);
    std::vector<int32_t> shift(512, 0);
    std::fill(shift.begin(), shift.begin() + 200, -5);
    ASSERT_EQ(here.shift_keys(shift), GGML_STATUS_SUCCESS);
    ASSERT_EQ(there.shift_keys(shift), GGML_STATUS_SUCCESS);
    EXPECT_EQ(here.read(here.keys()), there.read(there.keys()));
}

// Packs one of K and V alone: its rows are decoded for ggml's own attention.
void expect_right_with_one_side_packed(bool keys_packed) {
    const Shape shape{.n_stream = 2, .n_kv = 192, .causal_holes = true};
    Layer layer(plugin_backend(), shape, keys_packed ? plugin_memory() : cpu_memory(),
                keys_packed ? cpu_memory() : plugin_memory());
    Layer dense(cpu_backend(), shape);
    layer.attend(7);  // head_dim is known from here on
    layer.fill(1);
    dense.write(dense.keys(), layer.read(layer.keys()));
    dense.write(dense.values(), layer.read(layer.values()));
    EXPECT_LT(relative_error(layer.attend(7), dense.attend(7)), 1e-6);
}

TEST(Placement, KeysPackedAndValuesNot) {
    expect_right_with_one_side_packed(true);
}
TEST(Placement, ValuesPackedAndKeysNot) {
    expect_right_with_one_side_packed(false);
}

TEST(Placement, TensorsRebuiltWithoutExtraAreFound) {
    Layer layer(plugin_backend(), {});
    layer.attend(7);
    layer.fill(1);
    const Floats expected = layer.attend(7);
    layer.keys()->extra = layer.values()->extra = nullptr;
    EXPECT_EQ(layer.attend(7), expected);
    ggml_tensor copy = *layer.keys();
    std::vector<uint16_t> rows(static_cast<size_t>(ggml_nelements(&copy)));
    ggml_backend_tensor_get(&copy, rows.data(), 0, ggml_nbytes(&copy));
    EXPECT_EQ(rows, layer.read(layer.keys()));
}

// An rpc-server with our device allocates bytes, whatever they are for, and puts its client's tensors there.
TEST(Placement, CacheInAPlainBufferOfOursIsOrdinary) {
    const Shape shape{.n_stream = 2};
    Layer remote(plugin_backend(), shape, cpu_memory(), cpu_memory()), there(cpu_backend(), shape);
    const size_t bytes = ggml_nbytes(remote.keys());
    ggml_backend_buffer_ptr memory(ggml_backend_buft_alloc_buffer(plugin_memory(), 2 * bytes));
    auto* base = static_cast<char*>(ggml_backend_buffer_get_base(memory.get()));
    for (ggml_tensor* cache : {remote.keys(), remote.values()}) {
        cache->buffer = memory.get();
        cache->data = base + (cache == remote.keys() ? 0 : bytes);
        ASSERT_EQ(ggml_backend_buffer_init_tensor(memory.get(), cache), GGML_STATUS_SUCCESS);
    }
    capture_log();
    remote.fill(1);
    EXPECT_EQ(count_logged("this KV cache is not packed"), 1);
    there.fill(1);
    EXPECT_EQ(remote.read(remote.keys()), there.read(there.keys()));
    EXPECT_EQ(remote.attend(7), there.attend(7));
}

TEST(Placement, CachesOfOtherKindsAndTypesAreNotPacked) {
    struct Case {
        const char* name;
        ggml_type type;
        bool packed;
    };
    for (const Case& c : {Case{"cache_k_l0", GGML_TYPE_F16, true}, Case{"cache_v_l31", GGML_TYPE_BF16, true},
                          Case{"cache_k_l0", GGML_TYPE_F32, false}, Case{"cache_v_l0", GGML_TYPE_Q8_0, false},
                          Case{"cache_idx_k_l0", GGML_TYPE_F16, false}, Case{"cache_r_l0", GGML_TYPE_F16, false},
                          Case{"cache_k_l", GGML_TYPE_F16, false}, Case{"cache_k_l0 (view)", GGML_TYPE_F16, false}}) {
        ggml_context_ptr context = small_context();
        ggml_tensor* cache = ggml_new_tensor_3d(context.get(), c.type, 192, 256, 2);
        ggml_set_name(cache, c.name);
        const size_t bytes = ggml_backend_buft_get_alloc_size_n(plugin_memory(), &cache, 1);
        EXPECT_EQ(bytes < ggml_nbytes(cache), c.packed) << c.name << " " << ggml_type_name(c.type);
    }
}

// ggml built with assertions ends a process that is told less.
TEST(Placement, AllocSizeOfATensorIsNominal) {
    ggml_context_ptr context = small_context();
    ggml_tensor* cache = ggml_new_tensor_3d(context.get(), GGML_TYPE_F16, 192, 256, 1);
    ggml_set_name(cache, "cache_k_l0");
    EXPECT_EQ(ggml_backend_buft_get_alloc_size(plugin_memory(), cache), ggml_nbytes(cache));
}

TEST(Placement, LackOfMemoryIsAFailedAllocation) {
    ggml_context_ptr context = small_context();
    ggml_tensor* cache = ggml_new_tensor_3d(context.get(), GGML_TYPE_F16, 4096, int64_t{1} << 36, 1);
    ggml_set_name(cache, "cache_k_l0");
    EXPECT_EQ(ggml_backend_buft_alloc_buffer_n(plugin_memory(), &cache, 1), nullptr);
}

// ---- dry runs -------------------------------------------------------------------------------------------------------

// SET_ROWS on a cache of this type that has no memory, as llama.cpp's --fit makes it; whether our device takes it.
bool takes_set_rows_in_a_dry_run(const char* name, ggml_type type) {
    ggml_context_ptr context = small_context();
    ggml_tensor* cache = ggml_new_tensor_2d(context.get(), type, 192, 256);
    ggml_set_name(cache, name);
    ggml_backend_buffer_ptr dummy(ggml_backend_buft_alloc_buffer(plugin_memory(), 0));
    cache->buffer = dummy.get();
    ggml_tensor* rows = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, 192, 4);
    ggml_tensor* indices = ggml_new_tensor_1d(context.get(), GGML_TYPE_I64, 4);
    return ggml_backend_supports_op(plugin_backend(), ggml_set_rows(context.get(), cache, rows, indices));
}

TEST(DryRun, TakesCachesOfEveryType) {
    for (ggml_type type : {GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_F32, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) {
        for (const char* name : {"cache_k_l0", "cache_v_l1", "cache_idx_k_l2"}) {
            EXPECT_TRUE(takes_set_rows_in_a_dry_run(name, type)) << name << " " << ggml_type_name(type);
        }
    }
}

TEST(DryRun, LeavesWeightsToTheCpu) {
    ggml_context_ptr context = small_context();
    ggml_tensor* weight = ggml_new_tensor_2d(context.get(), GGML_TYPE_F16, 64, 64);
    ggml_set_name(weight, "blk.0.attn_q.weight");
    ggml_backend_buffer_ptr dummy(ggml_backend_buft_alloc_buffer(plugin_memory(), 0));
    weight->buffer = dummy.get();
    ggml_tensor* x = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, 64, 4);
    EXPECT_FALSE(ggml_backend_supports_op(plugin_backend(), ggml_mul_mat(context.get(), weight, x)));
}

TEST(Device, MapsWeightsAsTheCpuDoes) {
    ggml_backend_dev_props ours, cpu;
    ggml_backend_dev_get_props(ggml_backend_get_device(plugin_backend()), &ours);
    ggml_backend_dev_get_props(ggml_backend_get_device(cpu_backend()), &cpu);
    EXPECT_TRUE(ours.caps.mmap_support && cpu.caps.mmap_support);
    EXPECT_EQ(std::memcmp(&ours.caps, &cpu.caps, sizeof cpu.caps), 0);
    EXPECT_STREQ(ours.name, "TurboQuant");
}

// ---- views ----------------------------------------------------------------------------------------------------------

// The values of a view, as its strides say, of nominal rows.
std::vector<uint16_t> gather(const ggml_tensor* view, const std::vector<uint16_t>& rows) {
    std::vector<uint16_t> values;
    for (int64_t i3 = 0; i3 < view->ne[3]; ++i3)
        for (int64_t i2 = 0; i2 < view->ne[2]; ++i2)
            for (int64_t i1 = 0; i1 < view->ne[1]; ++i1)
                for (int64_t i0 = 0; i0 < view->ne[0]; ++i0) {
                    const size_t at = view->view_offs + static_cast<size_t>(i0) * view->nb[0] +
                                      static_cast<size_t>(i1) * view->nb[1] + static_cast<size_t>(i2) * view->nb[2] +
                                      static_cast<size_t>(i3) * view->nb[3];
                    values.push_back(rows[at / 2]);
                }
    return values;
}

// Any view of the cache within its bounds: up to three strides of whole values, some of whole rows, then its dims
// permuted.
ggml_tensor* random_view(ggml_context* ctx, ggml_tensor* cache, std::mt19937& random) {
    auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
    const int64_t n = ggml_nelements(cache), width = cache->ne[0];
    int64_t ne[4], stride[4] = {1, 0, 0, 0}, last = 0;
    for (int d = 0; d < 4; ++d) {
        ne[d] = 1 + below(d == 0 ? 40 : 5);
        if (d > 0) stride[d] = below(2) ? width * below(40) : below(3 * width);
        last += (ne[d] - 1) * stride[d];
    }
    const int64_t offset = below(n - last);
    ggml_tensor* view = ggml_view_4d(ctx, cache, ne[0], ne[1], ne[2], ne[3], 2 * static_cast<size_t>(stride[1]),
                                     2 * static_cast<size_t>(stride[2]), 2 * static_cast<size_t>(stride[3]),
                                     2 * static_cast<size_t>(offset));
    int axes[4] = {0, 1, 2, 3};
    std::shuffle(axes, axes + 4, random);
    return ggml_permute(ctx, view, axes[0], axes[1], axes[2], axes[3]);
}

TEST(Views, AnyViewIsDecodedAsItsStridesSay) {
    Layer layer(plugin_backend(), {.n_cells = 200, .n_stream = 3});
    layer.fill(1);
    const std::vector<uint16_t> rows = layer.read(layer.keys());
    std::mt19937 random(5);
    for (int i = 0; i < 300; ++i) {
        std::vector<uint16_t> expected;
        const std::vector<uint8_t> bytes = layer.compute([&](ggml_context* ctx) {
            ggml_tensor* view = random_view(ctx, layer.keys(), random);
            expected = gather(view, rows);
            return ggml_cont(ctx, view);
        });
        ASSERT_EQ(bytes.size(), 2 * expected.size()) << "view " << i;
        ASSERT_EQ(std::memcmp(bytes.data(), expected.data(), bytes.size()), 0) << "view " << i;
    }
}

// Attends as MiniMax M3 does: every KV head is a stream of its own, dimension 3.
Floats attend_with_heads_in_dim_3(Layer& layer) {
    const std::vector<uint8_t> bytes = layer.compute([&](ggml_context* ctx) {
        auto heads_last = [&](ggml_tensor* cache) {
            return ggml_view_4d(ctx, cache, 64, 200, 1, 3, cache->nb[1], cache->nb[2], 64 * 2, 0);
        };
        ggml_tensor* q = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, 64, 5, 3, 3);
        return ggml_flash_attn_ext(ctx, ggml_fill(ctx, q, 0.3f), heads_last(layer.keys()), heads_last(layer.values()),
                                   nullptr, 0.125f, 0, 0);
    });
    Floats out(bytes.size() / sizeof(float));
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
}

TEST(Views, HeadsInDimensionThree) {
    Layer packed(plugin_backend(), {}), dense(cpu_backend(), {});
    packed.attend(7);
    packed.fill(1);
    dense.write(dense.keys(), packed.read(packed.keys()));
    dense.write(dense.values(), packed.read(packed.values()));
    const Floats expected = attend_with_heads_in_dim_3(dense), actual = attend_with_heads_in_dim_3(packed);
    ASSERT_EQ(actual.size(), expected.size());
    EXPECT_LT(relative_error(actual, expected), 1e-6);
}

TEST(Views, BeyondTheCacheIsRefused) {
    capture_log();
    Layer layer(plugin_backend(), {});
    const std::vector<uint8_t> bytes = layer.compute([&](ggml_context* ctx) {
        ggml_tensor* view = ggml_view_2d(ctx, layer.keys(), 64, 4, layer.keys()->nb[1], 0);
        view->view_offs = ggml_nbytes(layer.keys()) - 64 * 2;
        return ggml_cont(ctx, view);
    });
    EXPECT_TRUE(bytes.empty());
    EXPECT_GE(count_logged("goes beyond its"), 1);
}

TEST(Views, OtherOpsReadThePackedCacheAndSayWhatItCosts) {
    Layer packed(plugin_backend(), {}), dense(cpu_backend(), {});
    packed.fill(1);
    dense.write(dense.keys(), packed.read(packed.keys()));
    auto scores = [](Layer& layer) {
        return layer.compute([&](ggml_context* ctx) {
            ggml_tensor* q = ggml_fill(ctx, ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 192, 7), 0.5f);
            return ggml_mul_mat(ctx, ggml_view_2d(ctx, layer.keys(), 192, 100, layer.keys()->nb[1], 0), q);
        });
    };
    capture_log();
    EXPECT_EQ(scores(packed), scores(dense));
    EXPECT_EQ(scores(packed), scores(dense));
    EXPECT_EQ(count_logged("MUL_MAT reads the packed KV cache"), 1);
}

// ---- SET_ROWS -------------------------------------------------------------------------------------------------------

TEST(SetRows, PlanesOfRowsAreRefused) {
    capture_log();
    Layer layer(plugin_backend(), {.n_stream = 2});
    const std::vector<uint8_t> bytes = layer.compute([&](ggml_context* ctx) {
        ggml_tensor* rows = ggml_fill(ctx, ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 192, 3, 2), 0.5f);
        ggml_tensor* indices =
            ggml_cast(ctx, ggml_fill(ctx, ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 3), 1), GGML_TYPE_I32);
        return ggml_set_rows(ctx, layer.keys(), rows, indices);
    });
    EXPECT_TRUE(bytes.empty());
    EXPECT_GE(count_logged("one plane at a time"), 1);
}

TEST(SetRows, OfTwoStoresIntoOneCellTheSecondStays) {
    for (int64_t n_tokens : {1, 5, 64}) {
        Layer layer(plugin_backend(), {}), once(plugin_backend(), {});
        const std::vector<uint8_t> bytes = layer.compute([&](ggml_context* ctx) {
            auto stored = [&](ggml_tensor* cache, float value) {
                ggml_tensor* rows = ggml_fill(ctx, ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 192, n_tokens), value);
                ggml_tensor* indices =
                    ggml_cast(ctx, ggml_arange(ctx, 0, static_cast<float>(n_tokens), 1), GGML_TYPE_I32);
                return ggml_set_rows(ctx, cache, rows, indices);
            };
            return stored(stored(layer.keys(), 0.5f), -0.25f);
        });
        EXPECT_FALSE(bytes.empty());
        std::vector<int64_t> cells;
        for (int64_t i = 0; i < n_tokens; ++i) cells.push_back(i);
        once.store(once.keys(), Floats(static_cast<size_t>(192 * n_tokens), -0.25f), cells);
        EXPECT_EQ(layer.read(layer.keys()), once.read(once.keys())) << n_tokens;
    }
}

}  // namespace
}  // namespace tq::e2e
