#include "bench/rival.h"

#include <chrono>
#include <cstring>

#include <fmt/format.h>

#include "bench/memory.h"

namespace tq::tool {
namespace {

constexpr size_t kNodesPerLayer = 8;  // with room to spare: two views, and the operator or two
constexpr size_t kTensorsPerLayer = 8;

// A graph of ggml's, its tensors' memory being ours.
class Graph {
  public:
    Graph(GgmlThreads& threads, size_t n_layer) : threads_(threads) {
        const size_t nodes = kNodesPerLayer * n_layer + 16, tensors = kTensorsPerLayer * n_layer + 16;
        context_ = ggml_init(
            {tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(nodes, false), nullptr, /*no_alloc=*/true});
        graph_ = ggml_new_graph_custom(context_, nodes, /*grads=*/false);
    }
    ~Graph() { ggml_free(context_); }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    ggml_tensor* tensor(ggml_type type, int64_t n0, int64_t n1, const void* data) {
        ggml_tensor* t = ggml_new_tensor_2d(context_, type, n0, n1);
        t->data = const_cast<void*>(data);
        return t;
    }
    // n0 fastest; strides in bytes.
    ggml_tensor* view(ggml_tensor* t, int64_t n0, int64_t n1, int64_t n2, size_t stride1, size_t stride2) {
        return ggml_view_3d(context_, t, n0, n1, n2, stride1, stride2, 0);
    }
    void add(ggml_tensor* node) { ggml_build_forward_expand(graph_, node); }

    void compute() { ggml_backend_graph_compute(threads_.backend, graph_); }

    ggml_context* context() { return context_; }

  private:
    GgmlThreads& threads_;
    ggml_context* context_;
    ggml_cgraph* graph_;
};

// K or V of all layers in ggml's layout: rows of n_embd values.
struct DensePlane {
    int64_t n_embd;
    int64_t n_cells;
    size_t row_bytes;
    std::vector<Memory> layers;
};

DensePlane make_dense(const Task& task, ggml_type type, int64_t n_embd) {
    DensePlane plane{n_embd, task.depth, ggml_row_size(type, n_embd), {}};
    for (int64_t i = 0; i < task.n_layer; ++i)
        plane.layers.emplace_back(plane.row_bytes * static_cast<size_t>(task.depth));
    return plane;
}

void fill(DensePlane& plane, ggml_type type, const std::vector<float>& pool) {
    const Memory rows(plane.row_bytes * kPoolRows);
    ggml_quantize_chunk(type, pool.data(), rows.data(), 0, kPoolRows, plane.n_embd, nullptr);
    for (Memory& layer : plane.layers) {
        for (int64_t cell = 0; cell < plane.n_cells; ++cell) {
            std::memcpy(layer.data() + cell * plane.row_bytes, rows.data() + cell % kPoolRows * plane.row_bytes,
                        plane.row_bytes);
        }
    }
}

// Any operator that takes no time: its graph wakes ggml's threads up.
std::unique_ptr<Graph> wake_up_graph(GgmlThreads& threads, const Memory& memory) {
    auto graph = std::make_unique<Graph>(threads, 1);
    ggml_tensor* rows = graph->tensor(GGML_TYPE_F32, 32, 8, memory.data());
    ggml_tensor* source = graph->tensor(GGML_TYPE_F32, 32, 8, memory.data() + 1024);
    ggml_tensor* indices = graph->tensor(GGML_TYPE_I64, 8, 1, memory.data() + 2048);
    graph->add(ggml_set_rows(graph->context(), rows, source, indices));
    return graph;
}

class Rival : public Contestant {
  public:
    Rival(const Task& task, ggml_type type, GgmlThreads& threads)
        : task_(task),
          type_(type),
          threads_(threads),
          keys_(make_dense(task, type, task.shape.n_embd_k())),
          values_(make_dense(task, type, task.shape.n_embd_v())),
          wake_up_memory_(4096),
          wake_up_(wake_up_graph(threads, wake_up_memory_)),
          graph_(threads, static_cast<size_t>(task.n_layer)) {
        name = ggml_type_name(type);
        layer_bytes = rival_layer_bytes(task, type);
        bits = 8.0 * static_cast<double>(layer_bytes) /
               static_cast<double>(task.depth * (task.shape.n_embd_k() + task.shape.n_embd_v()));
    }

    double run() override {
        using Clock = std::chrono::steady_clock;
        before();
        wake_up_->compute();
        const Clock::time_point begin = Clock::now();
        graph_.compute();
        const Clock::time_point end = Clock::now();
        return std::chrono::duration<double>(end - begin).count();
    }

  protected:
    virtual void before() {}

    const Task& task_;
    ggml_type type_;
    GgmlThreads& threads_;
    DensePlane keys_, values_;
    Memory wake_up_memory_;
    std::unique_ptr<Graph> wake_up_;
    Graph graph_;
};

class GgmlAttention : public Rival {
  public:
    GgmlAttention(const Task& task, ggml_type type, GgmlThreads& threads)
        : Rival(task, type, threads),
          out_floats_(task.batch * task.shape.n_head * task.shape.head_dim_v),
          out_(sizeof(float) * out_floats_) {
        fill(keys_, type, task.k);
        fill(values_, type, task.v);
        for (size_t layer = 0; layer < keys_.layers.size(); ++layer) add_layer(layer);
    }

    std::vector<float> output() const override { return {out_.floats(), out_.floats() + out_floats_}; }

  private:
    // Views as llama.cpp has them: heads side by side in a row of the cache.
    ggml_tensor* heads(const DensePlane& plane, size_t layer, int head_dim) {
        ggml_tensor* root = graph_.tensor(type_, plane.n_embd, plane.n_cells, plane.layers[layer].data());
        const size_t head_bytes = ggml_row_size(type_, head_dim);
        return graph_.view(root, head_dim, plane.n_cells, plane.n_embd / head_dim, plane.row_bytes, head_bytes);
    }

    void add_layer(size_t layer) {
        const HeadShape& s = task_.shape;
        const size_t q_head = sizeof(float) * s.head_dim_k;
        ggml_tensor* q = graph_.tensor(GGML_TYPE_F32, int64_t{s.head_dim_k} * s.n_head, task_.batch, task_.q.data());
        ggml_tensor* mask = graph_.tensor(GGML_TYPE_F16, task_.depth, task_.batch, task_.mask.data());
        ggml_tensor* node = ggml_flash_attn_ext(
            graph_.context(), graph_.view(q, s.head_dim_k, task_.batch, s.n_head, q_head * s.n_head, q_head),
            heads(keys_, layer, s.head_dim_k), heads(values_, layer, s.head_dim_v), mask, task_.scale(), 0, 0);
        node->data = out_.data();
        graph_.add(node);
    }

    size_t out_floats_;
    Memory out_;
};

class GgmlEncode : public Rival {
  public:
    GgmlEncode(const Task& task, ggml_type type, GgmlThreads& threads)
        : Rival(task, type, threads),
          cells_(static_cast<size_t>(task.batch)),
          k_(rows(task.k, keys_)),
          v_(rows(task.v, values_)) {
        for (size_t layer = 0; layer < keys_.layers.size(); ++layer) {
            add_layer(keys_, k_, layer);
            add_layer(values_, v_, layer);
        }
    }

  private:
    // The batch's rows, one after another.
    std::vector<float> rows(const std::vector<float>& pool, const DensePlane& plane) const {
        std::vector<float> rows;
        for (int64_t i = 0; i < task_.batch; ++i) {
            const float* row = pool.data() + i % kPoolRows * plane.n_embd;
            rows.insert(rows.end(), row, row + plane.n_embd);
        }
        return rows;
    }

    void add_layer(const DensePlane& plane, const std::vector<float>& rows, size_t layer) {
        ggml_tensor* root = graph_.tensor(type_, plane.n_embd, plane.n_cells, plane.layers[layer].data());
        ggml_tensor* source = graph_.tensor(GGML_TYPE_F32, plane.n_embd, task_.batch, rows.data());
        ggml_tensor* cells = graph_.tensor(GGML_TYPE_I64, task_.batch, 1, cells_.data());
        graph_.add(ggml_set_rows(graph_.context(), root, source, cells));
    }

    void before() override {
        first_ = first_ + task_.batch > task_.depth ? 0 : first_;
        for (int64_t i = 0; i < task_.batch; ++i) cells_[static_cast<size_t>(i)] = first_ + i;
        first_ += task_.batch;
    }

    std::vector<int64_t> cells_;
    std::vector<float> k_, v_;
    int64_t first_ = 0;
};

// ggml's threads wait for the next graph in a loop, for some milliseconds, which is less than measure() rests.
constexpr uint32_t kPoll = 1;

// A function of the CPU backend, which may be a module: named as in ggml-cpu.h, where it is declared.
template <class Function>
Function* cpu_function(ggml_backend_t backend, const char* name) {
    const ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
    return reinterpret_cast<Function*>(ggml_backend_reg_get_proc_address(registry, name));
}

}  // namespace

GgmlThreads::GgmlThreads(ggml_backend_dev_t cpu, int n) : backend(ggml_backend_dev_init(cpu, nullptr)) {
    if (auto* set = cpu_function<decltype(ggml_backend_cpu_set_n_threads)>(backend, "ggml_backend_set_n_threads")) {
        set(backend, n);
    }
    auto* start = cpu_function<decltype(ggml_threadpool_new)>(backend, "ggml_threadpool_new");
    auto* set_pool =
        cpu_function<decltype(ggml_backend_cpu_set_threadpool)>(backend, "ggml_backend_cpu_set_threadpool");
    if (!start || !set_pool) return;  // the backend starts threads itself
    ggml_threadpool_params params = ggml_threadpool_params_default(n);
    params.poll = kPoll;
    pool_ = start(&params);
    set_pool(backend, pool_);
}

GgmlThreads::~GgmlThreads() {
    auto* end = cpu_function<decltype(ggml_threadpool_free)>(backend, "ggml_threadpool_free");
    ggml_backend_free(backend);
    if (pool_) end(pool_);
}

Result<ggml_type> rival_type(const std::string& name) {
    if (name == "f16") return GGML_TYPE_F16;
    if (name == "q8_0") return GGML_TYPE_Q8_0;
    if (name == "q4_0") return GGML_TYPE_Q4_0;
    return Status(Error::kInvalidArgument, fmt::format("'{}' is none of f16, q8_0, q4_0 (or none)", name));
}

std::string rival_reason(const HeadShape& shape, ggml_type type) {
    const int64_t block = ggml_blck_size(type);
    if (shape.head_dim_k % block == 0 && shape.head_dim_v % block == 0) return "";
    return fmt::format("{} needs head sizes that are multiples of {}", ggml_type_name(type), block);
}

size_t rival_layer_bytes(const Task& task, ggml_type type) {
    const size_t row = ggml_row_size(type, task.shape.n_embd_k()) + ggml_row_size(type, task.shape.n_embd_v());
    return row * static_cast<size_t>(task.depth);
}

std::unique_ptr<Contestant> ggml_attention(const Task& task, ggml_type type, GgmlThreads& threads) {
    return std::make_unique<GgmlAttention>(task, type, threads);
}

std::unique_ptr<Contestant> ggml_encode(const Task& task, ggml_type type, GgmlThreads& threads) {
    return std::make_unique<GgmlEncode>(task, type, threads);
}

}  // namespace tq::tool
