// Sinks and a window of exact rows (TURBOQUANT_KV=k2v2+sink4+recent64): attended to as they are, in step with all that
// llama.cpp does to a cache. With 2-bit codes, what is taken from the codes cannot be mistaken for what is exact.
#include "support/attention_graph.h"
#include "support/host.h"
#include "support/layer_graph.h"

namespace tq::e2e {
namespace {

constexpr double kExact = 2e-3;  // ggml's attention and ours, both in float, on f16 rows
constexpr double kCodes = 0.1;   // attention on 2-bit codes errs by at least this

ggml_backend_ptr new_plugin_backend() {
    return ggml_backend_ptr(ggml_backend_dev_init(load_plugin(), nullptr));
}
ggml_backend_ptr new_cpu_backend() {
    return ggml_backend_ptr(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
}

// The same cache on the plugin's backend and, dense, on the CPU's.
struct Sides {
    explicit Sides(const Shape& shape = {}) : packed(plugin.get(), shape), dense(cpu.get(), shape) {
        packed.attend(7);  // head_dim is known from here on
        packed.fill(1);
        dense.fill(1);
    }
    double error() { return relative_error(packed.attend(7), dense.attend(7)); }

    ggml_backend_ptr plugin = new_plugin_backend(), cpu = new_cpu_backend();
    Layer packed, dense;
};

void expect_all_well(const std::string& preset, bool (*fn)()) {
    const ChildResult child = in_child({"TURBOQUANT_KV=" + preset}, fn);
    EXPECT_EQ(child.status, 0) << preset << "\n" << child.log;
}

TEST(Window, ACacheOfExactRowsIsTheF16Cache) {
    const auto exact = [] {
        return Sides().error() < kExact && Sides({.n_stream = 2, .softcap = 10, .sinks = true}).error() < kExact;
    };
    for (const char* preset : {"k2v2+recent256", "k2v2+sink256", "k2cv3t+sink56+recent200", "k4ctv4t+0:k2v2+recent300"})
        expect_all_well(preset, exact);
    expect_all_well("k2v2", [] { return Sides().error() > kCodes; });
    expect_all_well("k2v2+sink1+recent20", [] { return Sides().error() > kCodes; });
}

TEST(Window, AContextShiftMovesThemToo) {
    expect_all_well("k2v2+recent256", [] {
        Sides sides;
        std::vector<int32_t> shift(256, 0);
        for (int i = 100; i < 256; ++i) shift[i] = -50;
        return sides.packed.shift_keys(shift) == GGML_STATUS_SUCCESS &&
               sides.dense.shift_keys(shift) == GGML_STATUS_SUCCESS && sides.error() < kExact;
    });
}

// A state has the exact rows, and gives them back.
TEST(Window, WhatIsRestoredIsAsItWas) {
    const auto restored = [] {
        Sides sides;
        const Floats before = sides.packed.attend(7);
        const auto keys = sides.packed.read(sides.packed.keys()), values = sides.packed.read(sides.packed.values());
        sides.packed.allocate();
        sides.packed.attend(7);
        sides.packed.write(sides.packed.keys(), keys);
        sides.packed.write(sides.packed.values(), values);
        return relative_error(sides.packed.attend(7), before) < kExact;
    };
    for (const char* preset : {"k2v2+sink4+recent256", "k2v2+sink4+recent20", "k4cv4+recent7", "k3ctv3t+sink9"})
        expect_all_well(preset, restored);
}

TEST(Window, ACopiedStreamHasItToo) {
    expect_all_well("k2v2+recent256", [] {
        Sides sides({.n_stream = 2});
        for (Layer* layer : {&sides.packed, &sides.dense}) {
            layer->copy_stream(layer->keys(), 0, 1);
            layer->copy_stream(layer->values(), 0, 1);
        }
        return sides.error() < kExact;
    });
}

TEST(Window, AClearedBufferForgetsThem) {
    expect_all_well("k2v2+sink4+recent256", [] {
        Sides sides;
        ggml_backend_buffer_clear(sides.packed.buffer(), 0);
        for (float x : sides.packed.attend(7)) {
            if (x != 0) return false;
        }
        return true;
    });
}

// A token's query sees the same of rows stored in the same graph, whether it came alone or with those before it.
bool a_batch_is_its_tokens() {
    constexpr int64_t kTokens = 30, kFirst = 40;
    ggml_backend_ptr backend = new_plugin_backend();
    const auto run = [&](int64_t n_tokens) {
        const Shape shape{.n_tokens = n_tokens};
        Layer layer(backend.get(), {});
        layer.attend(7);
        layer.fill(1);
        const Floats k = random_rows(kTokens, shape.n_embd(true), 20),
                     v = random_rows(kTokens, shape.n_embd(false), 21);
        const Floats q = random_rows(kTokens, shape.head_dim_k * shape.n_head, 22);
        GraphMemory memory(backend.get());
        Floats last;
        for (int64_t first = 0; first < kTokens; first += n_tokens) {
            LayerGraph graph(memory, layer, shape);
            const auto set = [&](ggml_tensor* tensor, const Floats& rows) {
                const size_t row = rows.size() / kTokens;
                ggml_backend_tensor_set(tensor, rows.data() + row * first, 0, sizeof(float) * row * n_tokens);
            };
            set(graph.k_rows, k);
            set(graph.v_rows, v);
            set(graph.q->src[0]->src[0], q);
            std::vector<int64_t> cells;
            for (int64_t i = 0; i < n_tokens; ++i) cells.push_back(kFirst + first + i);
            graph.set_indices(cells);
            if (ggml_backend_graph_compute(backend.get(), graph.graph) != GGML_STATUS_SUCCESS) return Floats();
            last = graph.output();
        }
        return Floats(last.end() - shape.head_dim_v * shape.n_head, last.end());
    };
    const Floats alone = run(1);
    return !alone.empty() && run(kTokens) == alone && run(10) == alone;
}

TEST(Window, ABatchGivesWhatItsTokensGive) {
    for (const char* preset : {"k2v2+recent8", "k2v2+sink45+recent12", "k3ctv3t+sink2+recent100"})
        expect_all_well(preset, a_batch_is_its_tokens);
}

TEST(Window, AreSaidAndCounted) {
    const ChildResult child = in_child({"TURBOQUANT_KV=k4v4+sink4+recent60"}, [] {
        ggml_backend_ptr backend = new_plugin_backend();
        Layer layer(backend.get(), {});
        const size_t packed = 256 * 192 * (34 + 33) / 64, exact = 2 * 64 * 192 * sizeof(uint16_t);
        return ggml_backend_buffer_get_size(layer.buffer()) == packed + exact;
    });
    EXPECT_EQ(child.status, 0) << child.log;
    EXPECT_NE(child.log.find(
                  "k4v4+sink4+recent60 (k4v4, sinks=4 window=60), 4.19 bits per value (K 4.250, V 4.125) beside sinks "
                  "and window in f16"),
              std::string::npos)
        << child.log;
}

TEST(Window, TheDensePathSaysThatItLeavesThemOut) {
    const ChildResult child = in_child({"TURBOQUANT_KV=k2v2+recent256", "TURBOQUANT_ATTENTION=dense"},
                                       [] { return Sides().error() > kCodes; });
    EXPECT_EQ(child.status, 0) << child.log;
    EXPECT_NE(child.log.find("the rows of sinks and window in f16 are not used"), std::string::npos) << child.log;
}

}  // namespace
}  // namespace tq::e2e
