// llama.cpp computes one graph token after token, and the plugin rewrites it once. Most tests here compute everything
// twice: on a backend that may have kept something, and on one made for this run alone. Both must give the same.
#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>

#include "support/allocations.h"
#include "support/attention_graph.h"
#include "support/generation.h"
#include "support/host.h"
#include "support/layer_graph.h"

namespace tq::e2e {
namespace {

constexpr double kAttentionBound = 0.02;  // the bound of plugin_test.cpp

ggml_backend_ptr new_backend() {
    return ggml_backend_ptr(ggml_backend_dev_init(load_plugin(), nullptr));
}

struct Outcome {
    ggml_status status = GGML_STATUS_FAILED;
    Floats out;
    std::vector<uint8_t> keys, values;  // packed
    bool operator==(const Outcome&) const = default;
};

enum class Backend { kKept, kNew };

// A cache, a graph on it and what computes it.
class Rig {
  public:
    Rig(Backend backend, const Shape& shape, ggml_type row_type = GGML_TYPE_F32)
        : shape(shape), layer(plugin_backend(), shape), memory(plugin_backend()), row_type_(row_type) {
        build();
        compute();  // head_dim is known from here on, and what is stored keeps its bytes
        layer.fill(1);
        if (backend == Backend::kKept) kept_ = new_backend();
    }

    void build() { build(shape); }
    void build(const Shape& other) { graph.emplace(memory, layer, other, row_type_); }

    Outcome compute() { return compute(graph->graph, graph->out); }

    // result: may be null.
    Outcome compute(ggml_cgraph* cgraph, ggml_tensor* result, int64_t fail_at = 0) {
        ggml_backend_ptr temporary = kept_ ? nullptr : new_backend();
        ggml_backend_t backend = kept_ ? kept_.get() : temporary.get();
        set_n_threads(backend, n_threads);
        Outcome outcome;
        {
            const PluginAllocations counted(fail_at);
            outcome.status = ggml_backend_graph_compute(backend, cgraph);
            n_allocations = counted.count();
        }
        outcome.out.resize(result ? static_cast<size_t>(ggml_nelements(result)) : 0);
        if (result) ggml_backend_tensor_get(result, outcome.out.data(), 0, ggml_nbytes(result));
        outcome.keys = layer.packed(layer.keys());
        outcome.values = layer.packed(layer.values());
        return outcome;
    }

    const Shape shape;
    Layer layer;
    GraphMemory memory;
    std::optional<LayerGraph> graph;
    int n_threads = 2;
    int64_t n_allocations = 0;  // allocations that the plugin made in the last run

  private:
    ggml_backend_ptr kept_;
    ggml_type row_type_;
};

class Pair {
  public:
    explicit Pair(const Shape& shape = {}, ggml_type row_type = GGML_TYPE_F32)
        : kept(Backend::kKept, shape, row_type), fresh(Backend::kNew, shape, row_type) {}

    void both(const std::function<void(Rig&)>& fn) {
        fn(kept);
        fn(fresh);
    }
    void change(void (*fn)(LayerGraph&)) {
        both([&](Rig& rig) { fn(*rig.graph); });
    }

    // Returns the kept backend's outcome, which must be that of the new one.
    Outcome compute() {
        Outcome outcome = kept.compute();
        EXPECT_EQ(outcome.status, GGML_STATUS_SUCCESS);
        EXPECT_TRUE(outcome == fresh.compute());
        return outcome;
    }

    Rig kept, fresh;
};

// Another graph on the cache of a rig.
class Piece {
  public:
    Piece(Rig& rig, const Shape& shape) : rig_(rig), memory_(plugin_backend()), graph_(memory_, rig.layer, shape) {}
    Outcome compute(int64_t fail_at = 0) { return rig_.compute(graph_.graph, graph_.out, fail_at); }

  private:
    Rig& rig_;
    GraphMemory memory_;
    LayerGraph graph_;
};

// ---- the same again -------------------------------------------------------------------------------------------------

const Shape kDense{.head_dim_k = 40, .head_dim_v = 40, .n_head = 4, .n_head_kv = 2};

struct Variant {
    const char* name;
    Shape shape;
    ggml_type row_type = GGML_TYPE_F32;
};
void PrintTo(const Variant& variant, std::ostream* out) {
    *out << variant.name;
}

const Variant kVariants[] = {
    {"Plain", {}},
    {"SplitAmongThreads", {.n_cells = 2048, .n_tokens = 1, .n_kv = 1280}},
    {"ManyTokens", {.n_tokens = 70}},
    {"SinksAndSoftcap", {.softcap = 5, .sinks = true}},
    {"HalfRows", {}, GGML_TYPE_F16},
    {"DensePath", kDense},
};

class SameGraph : public testing::TestWithParam<Variant> {};
INSTANTIATE_TEST_SUITE_P(Variants, SameGraph, testing::ValuesIn(kVariants),
                         [](const auto& info) { return info.param.name; });

TEST_P(SameGraph, GivesTheSameAndAllocatesNothing) {
    capture_log();
    Pair pair(GetParam().shape, GetParam().row_type);
    const Outcome first = pair.compute();
    EXPECT_GT(pair.kept.n_allocations, 0);  // the counter counts
    for (int run = 0; run < 3; ++run) {
        EXPECT_TRUE(pair.compute() == first);
        EXPECT_EQ(pair.kept.n_allocations, 0) << run;
        EXPECT_GT(pair.fresh.n_allocations, 0);
    }
}

TEST(GraphReuse, IsRightAsWellAsTheSame) {
    Rig packed(Backend::kKept, {});
    packed.compute();
    packed.layer.fill(3);
    const Outcome outcome = packed.compute();

    ggml_backend_ptr cpu(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    Layer dense(cpu.get(), {});
    dense.write(dense.keys(), packed.layer.read(packed.layer.keys()));
    dense.write(dense.values(), packed.layer.read(packed.layer.values()));
    GraphMemory memory(cpu.get());
    const LayerGraph graph(memory, dense, {});
    for (ggml_tensor* store : {graph.store_k, graph.store_v}) store->op = GGML_OP_VIEW;  // it is there, decoded
    ASSERT_EQ(ggml_backend_graph_compute(cpu.get(), graph.graph), GGML_STATUS_SUCCESS);
    EXPECT_LT(relative_error(outcome.out, graph.output()), kAttentionBound);
}

// The graphs of one token, if its layers are on several devices. More of them than are kept are right, too.
TEST(GraphReuse, GraphsTakeTurns) {
    for (int n_graphs : {3, 8, 11}) {
        Pair pair;
        std::vector<std::unique_ptr<Piece>> kept, fresh;
        for (int i = 0; i < n_graphs; ++i) {
            const Shape shape{.n_tokens = 1 + i, .n_kv = 256 - 16 * i};
            kept.push_back(std::make_unique<Piece>(pair.kept, shape));
            fresh.push_back(std::make_unique<Piece>(pair.fresh, shape));
        }
        for (int run = 0; run < 3; ++run) {
            for (size_t i = 0; i < kept.size(); ++i) {
                EXPECT_TRUE(kept[i]->compute() == fresh[i]->compute()) << i << " of " << n_graphs;
                EXPECT_TRUE(run < 2 || n_graphs > 8 || pair.kept.n_allocations == 0) << i << " of " << n_graphs;
            }
        }
    }
}

// ---- what is read anew in every run ---------------------------------------------------------------------------------

TEST(GraphReuse, IndicesAreReadInEveryRun) {
    Pair pair;
    Outcome last = pair.compute();
    for (int64_t cell : {100, 7, 251}) {
        pair.both([&](Rig& rig) { rig.graph->set_indices({cell, cell + 1, cell + 2, cell + 3, cell + 4}); });
        const Outcome outcome = pair.compute();
        EXPECT_EQ(pair.kept.n_allocations, 0);
        EXPECT_FALSE(outcome.keys == last.keys);
        EXPECT_FALSE(outcome.values == last.values);
        EXPECT_FALSE(outcome.out == last.out);
        last = outcome;
    }
}

TEST(GraphReuse, AnIndexOutsideTheCacheFailsThatRunAlone) {
    capture_log();
    Rig rig(Backend::kKept, {});
    const Outcome good = rig.compute();
    for (int run = 0; run < 2; ++run) {
        rig.graph->set_indices({0, 1, 2, 3, 256});
        EXPECT_EQ(rig.compute().status, GGML_STATUS_FAILED);
        rig.graph->set_indices({0, 1, 2, 3, 4});
        EXPECT_TRUE(rig.compute() == good);
        EXPECT_EQ(rig.n_allocations, 0);
    }
    EXPECT_EQ(count_logged("stores a row outside the KV cache"), 2);
}

// ---- changes in place -----------------------------------------------------------------------------------------------

void set_param(ggml_tensor* node, int index, float value) {
    std::memcpy(node->op_params + index, &value, sizeof value);
}

void see_cells(LayerGraph& g, int64_t n_kv) {
    g.k->ne[1] = g.v->ne[1] = n_kv;
}

void move_view(ggml_tensor* view, size_t bytes) {
    view->view_offs += bytes;
    view->data = static_cast<char*>(view->data) + bytes;
}

struct Change {
    const char* name;
    void (*apply)(LayerGraph&);
    Shape shape = {};
};
void PrintTo(const Change& change, std::ostream* out) {
    *out << change.name;
}

constexpr auto kMovesTheOutput = +[](LayerGraph& g) { g.attention->data = g.other_attention->data; };

const Change kChanges[] = {
    {"AnotherMask", [](LayerGraph& g) { g.attention->src[3] = g.other_mask; }},
    {"MaskElsewhere", [](LayerGraph& g) { g.mask->data = g.other_mask->data; }},
    {"NoMask", [](LayerGraph& g) { g.attention->src[3] = nullptr; }},
    {"FewerCells", [](LayerGraph& g) { see_cells(g, 192); }},
    {"CellsOfAnUnfinishedBlock", [](LayerGraph& g) { see_cells(g, 200); }},
    {"FewerCellsOnTheDensePath", [](LayerGraph& g) { see_cells(g, 192); }, kDense},
    {"AnotherStream",
     [](LayerGraph& g) {
         for (ggml_tensor* view : {g.k, g.v}) move_view(view, view->view_src->nb[2]);
     },
     {.n_stream = 2}},
    {"KeysAsValues", [](LayerGraph& g) { std::swap(g.attention->src[1], g.attention->src[2]); }},
    {"Scale", [](LayerGraph& g) { set_param(g.attention, 0, 0.05f); }},
    {"ScaleOnTheDensePath", [](LayerGraph& g) { set_param(g.attention, 0, 0.05f); }, kDense},
    {"Alibi", [](LayerGraph& g) { set_param(g.attention, 1, 8); }},
    {"Softcap", [](LayerGraph& g) { set_param(g.attention, 2, 3); }},
    {"AnotherQuery", [](LayerGraph& g) { g.attention->src[0] = g.other_q; }},
    {"QueryElsewhere", [](LayerGraph& g) { g.q->data = g.other_q->data; }},
    {"Sinks", [](LayerGraph& g) { g.attention->src[4] = g.sinks; }},
    {"OutputElsewhere", kMovesTheOutput},
    {"OtherRows", [](LayerGraph& g) { g.store_k->src[0] = g.other_rows; }},
    {"RowsElsewhere", [](LayerGraph& g) { g.k_rows->data = g.other_rows->data; }},
    {"NoStore", [](LayerGraph& g) { g.store_k->op = GGML_OP_VIEW; }},
    {"AnotherFactorInANodeOfGgml", [](LayerGraph& g) { set_param(g.out, 0, 7); }},
};

class InPlace : public testing::TestWithParam<Change> {};
INSTANTIATE_TEST_SUITE_P(Changes, InPlace, testing::ValuesIn(kChanges),
                         [](const auto& info) { return info.param.name; });

TEST_P(InPlace, IsNoticed) {
    Pair pair(GetParam().shape);
    const Outcome before = pair.compute();
    EXPECT_TRUE(pair.compute() == before);
    pair.both([](Rig& rig) {
        rig.layer.fill(1);
        std::memset(rig.graph->attention->data, 0, ggml_nbytes(rig.graph->attention));
        GetParam().apply(*rig.graph);
    });
    const Outcome after = pair.compute();
    EXPECT_TRUE(pair.compute() == after);
    EXPECT_EQ(after == before, GetParam().apply == kMovesTheOutput);  // or there was nothing to notice
    pair.both([](Rig& rig) { rig.build(); });
    EXPECT_TRUE(pair.compute() == before);
    EXPECT_TRUE(pair.compute() == before);
    EXPECT_EQ(pair.kept.n_allocations, 0);
}

TEST(GraphReuse, AnotherNumberOfThreadsIsNoticed) {
    Pair pair({.n_cells = 2048, .n_tokens = 1, .n_kv = 2048});
    const Outcome before = pair.compute();
    for (int n_threads : {5, 1, 3}) {
        pair.both([=](Rig& rig) { rig.n_threads = n_threads; });
        EXPECT_TRUE(pair.compute() == before);
        EXPECT_GT(pair.kept.n_allocations, 0);  // a plan has scratch for so many threads
        EXPECT_TRUE(pair.compute() == before);
        EXPECT_EQ(pair.kept.n_allocations, 0);
    }
}

// Attention on tensors of its own, until they are views of the cache.
TEST(GraphReuse, TensorsThatBecomeViewsOfTheCacheAreNoticed) {
    Pair pair;
    pair.change([](LayerGraph& g) {
        g.attention->src[1] = g.plain_k;
        g.attention->src[2] = g.plain_v;
    });
    const Outcome before = pair.compute();
    pair.change([](LayerGraph& g) {
        *g.plain_k = *g.k;
        *g.plain_v = *g.v;
    });
    EXPECT_FALSE(pair.compute() == before);
}

// ---- other tensors at the same addresses ----------------------------------------------------------------------------

TEST(SameAddress, AnotherGraph) {
    Pair pair;
    for (int64_t n_kv : {256, 192, 256, 128}) {
        for (const Shape& shape : {Shape{.n_tokens = 5, .n_kv = n_kv}, Shape{.n_tokens = 3, .n_kv = n_kv},
                                   Shape{.n_kv = n_kv, .sinks = true}, Shape{.n_kv = n_kv, .softcap = 4},
                                   Shape{.n_head = 6, .n_kv = n_kv}}) {
            pair.both([&](Rig& rig) { rig.build(shape); });
            pair.compute();
        }
    }
}

// The same nodes on the cache of another layer.
TEST(SameAddress, AnotherCache) {
    Pair pair;
    Layer others[2] = {{plugin_backend(), {}}, {plugin_backend(), {}}};
    for (Layer& other : others) other.fill(5);
    const Outcome before = pair.compute();
    for (int run = 0; run < 2; ++run) {
        pair.kept.graph.emplace(pair.kept.memory, others[0], Shape{});
        pair.fresh.graph.emplace(pair.fresh.memory, others[1], Shape{});
        EXPECT_FALSE(pair.compute().out == before.out);
        EXPECT_EQ(others[0].packed(others[0].keys()), others[1].packed(others[1].keys()));
        pair.both([](Rig& rig) { rig.build(); });
        EXPECT_TRUE(pair.compute() == before);
    }
}

// Freed and allocated again, as when a context ends and the next one begins.
TEST(SameAddress, AnotherBuffer) {
    Pair pair;
    pair.change([](LayerGraph& g) {
        // Nobody needs it here, and the new buffer has another one: the test is about what lies behind the same data.
        ggml_tensor* const views[] = {g.k, g.v, g.store_k, g.store_v, g.store_k->src[2], g.store_v->src[2]};
        for (ggml_tensor* view : views) view->buffer = nullptr;
    });
    const Outcome before = pair.compute();
    EXPECT_TRUE(pair.compute() == before);
    const void* data = pair.kept.layer.keys()->data;
    {
        const FreedMemory freed;
        pair.kept.layer.allocate();
    }
    ASSERT_EQ(pair.kept.layer.keys()->data, data);
    pair.fresh.layer.allocate();
    pair.fresh.build();  // it may be elsewhere
    EXPECT_FALSE(pair.compute() == before);
    pair.both([](Rig& rig) { rig.layer.fill(1); });
    EXPECT_TRUE(pair.compute() == before);
}

// The same cache read with another head_dim is encoded again, for another rotation.
TEST(SameAddress, AnotherHeadDim) {
    Pair pair;
    const Shape narrow{.head_dim_k = 32, .head_dim_v = 32, .n_head = 18, .n_head_kv = 6};
    Piece kept(pair.kept, narrow), fresh(pair.fresh, narrow);
    for (int run = 0; run < 3; ++run) {
        pair.compute();
        EXPECT_TRUE(kept.compute() == fresh.compute());
    }
}

// ---- context shift --------------------------------------------------------------------------------------------------

// llama.cpp's: ROPE in place on all keys, by the positions in `by`.
struct ShiftGraph {
    ShiftGraph(GraphMemory& memory, Layer& layer, const Shape& s) {
        ggml_context* ctx = memory.restart();
        by = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, s.n_rows());
        ggml_tensor* keys = layer.keys();
        ggml_tensor* rows = ggml_view_3d(ctx, keys, s.head_dim_k, s.n_head_kv, s.n_rows(),
                                         ggml_row_size(keys->type, s.head_dim_k), keys->nb[1], 0);
        graph = ggml_new_graph(ctx);
        ggml_build_forward_expand(graph, ggml_rope_ext_inplace(ctx, rows, by, nullptr, static_cast<int>(s.head_dim_k),
                                                               GGML_ROPE_TYPE_NEOX, 0, 10000, 1, 0, 1, 0, 0));
        memory.allocate();
    }

    ggml_cgraph* graph;
    ggml_tensor* by;
};

TEST(ContextShift, IsRewrittenInEveryRun) {
    const Shape shape{.n_cells = 640};
    Pair pair(shape);
    pair.compute();
    GraphMemory memories[2] = {GraphMemory(plugin_backend()), GraphMemory(plugin_backend())};
    const ShiftGraph kept(memories[0], pair.kept.layer, shape), fresh(memories[1], pair.fresh.layer, shape);
    std::vector<uint8_t> last = pair.kept.layer.packed(pair.kept.layer.keys());
    for (const std::pair<size_t, size_t>& shifted :
         {std::pair<size_t, size_t>{0, 5}, {100, 500}, {100, 500}, {639, 640}}) {
        std::vector<int32_t> shift(640, 0);
        std::fill(shift.begin() + static_cast<int64_t>(shifted.first),
                  shift.begin() + static_cast<int64_t>(shifted.second), -37);
        for (const ShiftGraph* g : {&kept, &fresh}) ggml_backend_tensor_set(g->by, shift.data(), 0, ggml_nbytes(g->by));
        const Outcome outcome = pair.kept.compute(kept.graph, nullptr);
        EXPECT_EQ(outcome.status, GGML_STATUS_SUCCESS);
        EXPECT_GT(pair.kept.n_allocations, 0);
        EXPECT_TRUE(outcome == pair.fresh.compute(fresh.graph, nullptr));
        EXPECT_NE(outcome.keys, last);
        last = outcome.keys;
        pair.compute();  // the shift's scratch is not that of attention
    }
}

// ---- llama.cpp ------------------------------------------------------------------------------------------------------

// Checks that llama.cpp's graphs are recognized: of the tokens here only those after a prompt bring new ones.
TEST(LlamaCpp, ATokenAllocatesNothing) {
    TQ_NEEDS_FILE(TQ_E2E_MODEL);
    capture_log();
    const llama_model_ptr model = load_model(TQ_E2E_MODEL, Cache::kTurboQuant);
    ASSERT_TRUE(model);
    const Tokens tokens = prompt(model.get(), 64);
    Session session(model.get());
    for (llama_pos position : {0, 30}) {
        const auto begin = tokens.begin() + position;
        session.decode({begin, begin + 20}, position);
        session.decode({begin[20]}, position + 20);
        for (llama_pos i = 21; i < 30; ++i) {
            const PluginAllocations counted;
            ASSERT_FALSE(session.decode({begin[i]}, position + i).empty());
            EXPECT_EQ(counted.count(), 0) << position + i;
        }
    }
}

// ---- no memory ------------------------------------------------------------------------------------------------------

// Whichever allocation fails, the run fails, and nothing that was kept points to what is gone.
TEST(NoMemory, EndsOneRunAndLeavesNoTrace) {
    capture_log();
    const Shape large{.n_tokens = 70, .n_kv = 192};
    Rig fresh(Backend::kNew, {});
    Piece fresh_large(fresh, large);
    fresh.compute();
    const Outcome expected_large = fresh_large.compute(), expected = fresh.compute();
    int64_t fail_at = 1;
    for (bool failed = true; failed; ++fail_at) {
        Rig kept(Backend::kKept, {});
        Piece kept_large(kept, large);
        kept.compute();
        kept.compute();
        const FreedMemory freed;
        failed = kept_large.compute(fail_at).status != GGML_STATUS_SUCCESS;
        kept.compute();
        EXPECT_TRUE(freed.untouched()) << "allocation " << fail_at;
        EXPECT_TRUE(kept_large.compute() == expected_large) << "allocation " << fail_at;
        EXPECT_TRUE(kept.compute() == expected) << "allocation " << fail_at;
    }
    EXPECT_GT(fail_at, 10);
    EXPECT_EQ(count_logged("not enough memory"), fail_at - 2);
}

}  // namespace
}  // namespace tq::e2e
