#include "graph.h"

#include <fmt/format.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <utility>

#include "attention_node.h"
#include "log.h"
#include "set_rows.h"
#include "task.h"

namespace tq::plugin {
namespace {

constexpr int64_t kShiftRows = 256;   // rows of a context shift that are dense at the same time

bool is_view_op(ggml_op op) {
    return op == GGML_OP_NONE || op == GGML_OP_VIEW || op == GGML_OP_RESHAPE || op == GGML_OP_PERMUTE || op == GGML_OP_TRANSPOSE;
}

bool is_kv(const ggml_tensor* tensor) { return tensor && kv_side(root_of(tensor)).has_value(); }

// What add() has to look at more closely.
bool has_kv(const ggml_tensor* node) {
    if (is_kv(node)) return true;
    for (const ggml_tensor* src : node->src) {
        if (!src) return false;
        if (is_kv(src)) return true;
    }
    return false;
}

void run_task(ggml_tensor*, int thread, int n_threads, void* task) { static_cast<Task*>(task)->run(thread, n_threads); }

}  // namespace

bool touches_kv(const ggml_tensor* node) {
    return is_kv(node) || (node->op == GGML_OP_FLASH_ATTN_EXT && (is_kv(node->src[1]) || is_kv(node->src[2])));
}

std::string rejection(const ggml_tensor* node) {
    if (is_view_op(node->op)) return "";
    if (!touches_kv(node)) {
        for (const ggml_tensor* src : node->src) {
            if (is_kv(src)) return fmt::format("{} reads the packed KV cache directly, which only FLASH_ATTN_EXT can: run with -fa on", ggml_op_name(node->op));
        }
        return "";
    }
    if (!is_kv(node)) return "";
    if (node->op == GGML_OP_SET_ROWS) {
        if (node->ne[0] == root_of(node)->ne[0]) return "";
        return "flash attention is off, so V is stored transposed and can't be packed: run with -fa on (or -fa auto)";
    }
    if (node->op == GGML_OP_ROPE) return "";
    return fmt::format("this llama.cpp writes to the KV cache with {}, which the TurboQuant device can't do on packed rows; "
                       "run with --device none, or with a llama.cpp that the README lists",
                       ggml_op_name(node->op));
}

void learn_head_dim(const ggml_tensor* node) {
    if (node->op != GGML_OP_FLASH_ATTN_EXT) return;
    for (const ggml_tensor* view : {node->src[1], node->src[2]}) {
        KvTensor* kv = view ? kv_tensor_of(view) : nullptr;
        if (kv && root_of(view)->ne[0] == view->ne[0] * view->ne[2]) kv->set_head_dim(static_cast<int>(view->ne[0]));
    }
}

struct GraphRewriter::Impl {
    Config config;
    Arena workspace;                              // of attention plans
    Arena dense[2];                               // K and V rows of the dense path; shifted rows
    std::vector<std::byte> tensor_memory;         // our nodes
    ggml_context* context = nullptr;
    std::vector<ggml_tensor*> nodes;
    std::deque<std::unique_ptr<Task>> tasks;
    std::deque<std::vector<int32_t>> positions;   // of context shifts
    std::atomic<bool> bad_data{false};
    // Rows to store and queries to prepare wait here until a node needs them done: nothing else may come between.
    std::unique_ptr<TaskGroup> pending = std::make_unique<TaskGroup>();
    const ggml_tensor* pending_node = nullptr;

    explicit Impl(const Config& c) : config(c) {}
    ~Impl() {
        if (context) ggml_free(context);
    }

    void reset(size_t max_nodes) {
        tasks.clear();
        pending = std::make_unique<TaskGroup>();
        positions.clear();
        nodes.clear();
        bad_data = false;
        workspace.release_retired();
        for (Arena& arena : dense) arena.release_retired();
        if (context) ggml_free(context);
        const size_t bytes = max_nodes * ggml_tensor_overhead() + ggml_graph_overhead_custom(max_nodes, false);
        if (tensor_memory.size() < bytes) tensor_memory.resize(bytes);
        context = ggml_init({tensor_memory.size(), tensor_memory.data(), /*no_alloc=*/true});
    }

    // Puts a node of ours in the place of `original`: the scheduler's data, buffer and flags (without the compute flag the CPU
    // backend skips a node silently).
    void replace(ggml_tensor* node, const ggml_tensor* original) {
        node->data = original->data;
        node->buffer = original->buffer;
        node->flags = original->flags;
        nodes.push_back(node);
    }

    void add_task(std::unique_ptr<Task> task, const ggml_tensor* original) {
        ggml_tensor* none[1] = {};
        replace(ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, none, 0, run_task, GGML_N_TASKS_MAX, task.get()), original);
        tasks.push_back(std::move(task));
    }

    void add_pending(std::unique_ptr<Task> task, const ggml_tensor* original) {
        pending->add(std::move(task));
        pending_node = original;
    }

    void flush() {
        if (pending->empty()) return;
        add_task(std::exchange(pending, std::make_unique<TaskGroup>()), pending_node);
    }

    void add_attention(ggml_tensor* node, int n_threads) {
        Result<FusedAttention> fused = fuse_attention(node, config.isa, n_threads);
        if (!fused.ok()) {
            log_once(GGML_LOG_LEVEL_WARN, "attention takes the dense path (same cache, slower): " + fused.status().message());
            flush();
            add_dense_attention(node);
            return;
        }
        void* memory = workspace.reserve(fused->plan.workspace_bytes());
        add_pending(std::make_unique<AttentionTask>(fused.value(), AttentionPhase::kPrepare, memory), node);
        flush();
        for (AttentionPhase phase : {AttentionPhase::kAttend, AttentionPhase::kMerge}) {
            if (fused->plan.n_items(phase) > 0) add_task(std::make_unique<AttentionTask>(fused.value(), phase, memory), node);
        }
    }

    // ggml's own attention, on decoded copies of the rows that this node sees.
    void add_dense_attention(ggml_tensor* node) {
        ggml_tensor* k = dense_operand(node->src[1], dense[0], node);
        ggml_tensor* v = dense_operand(node->src[2], dense[1], node);
        ggml_tensor* copy = ggml_flash_attn_ext(context, node->src[0], k, v, node->src[3], attention_param(node, 0),
                                                attention_param(node, 1), attention_param(node, 2));
        std::memcpy(copy->op_params, node->op_params, sizeof copy->op_params);
        for (int i = 4; i < GGML_MAX_SRC; ++i) copy->src[i] = node->src[i];
        replace(copy, node);
    }

    // The view's rows [0, n_kv) of its streams in nominal form, and the same view on them.
    ggml_tensor* dense_operand(ggml_tensor* view, Arena& arena, const ggml_tensor* node) {
        KvTensor* kv = kv_tensor_of(view);
        if (!kv) return view;
        kv->codec();   // made here, before threads share it
        const int64_t n_kv = view->ne[1], n_cells = kv->layout().n_cells, n_rows = n_kv * view->ne[3];
        const int64_t first = static_cast<int64_t>(view->view_offs / kv->row_bytes());
        auto* rows = static_cast<uint8_t*>(arena.reserve(kv->row_bytes() * n_rows));
        auto decode = [=](int64_t i) { kv->decode_nominal(first + i / n_kv * n_cells + i % n_kv, rows + i * kv->row_bytes()); };
        add_task(std::make_unique<RowsTask>(n_rows, [](int64_t i) { return i; }, decode), node);

        ggml_tensor* copy = ggml_new_tensor(context, view->type, GGML_MAX_DIMS, view->ne);
        std::memcpy(copy->nb, view->nb, sizeof copy->nb);
        copy->nb[3] = kv->row_bytes() * n_kv;
        copy->data = rows + view->view_offs % kv->row_bytes();
        return copy;
    }

    // In-place ROPE on keys: a context shift. Only rows whose position changes are decoded, rotated and encoded again.
    void add_shift(ggml_tensor* node) {
        const ggml_tensor* view = node->src[0];
        KvTensor* kv = kv_tensor_of(view);
        kv->codec();   // made here, before threads share it
        const auto* shift = static_cast<const int32_t*>(node->src[1]->data);
        std::vector<int64_t> rows;
        for (int64_t i = 0; i < view->ne[2]; ++i) {
            if (shift[i] != 0) rows.push_back(i);
        }
        for (size_t begin = 0; begin < rows.size(); begin += kShiftRows) {
            const size_t end = std::min(rows.size(), begin + kShiftRows);
            add_shift_piece(node, kv, shift, std::vector<int64_t>(rows.begin() + begin, rows.begin() + end));
        }
    }

    void add_shift_piece(ggml_tensor* node, KvTensor* kv, const int32_t* shift, std::vector<int64_t> rows) {
        const ggml_tensor* view = node->src[0];
        const int64_t n = static_cast<int64_t>(rows.size()), n_embd = kv->layout().n_embd;
        const size_t element = ggml_type_size(view->type);
        auto* memory = static_cast<float*>(dense[0].reserve(sizeof(float) * n_embd * kShiftRows));
        std::vector<int32_t>& position = positions.emplace_back();
        for (int64_t row : rows) position.push_back(shift[row]);

        auto owner = [kv, rows](int64_t i) { return kv->block_of_row(rows[i]); };
        add_task(std::make_unique<RowsTask>(n, owner, [=](int64_t i) { kv->decode_row(rows[i], memory + i * n_embd); }), node);

        ggml_tensor* dense_view = ggml_new_tensor_3d(context, GGML_TYPE_F32, view->ne[0], view->ne[1], n);
        dense_view->nb[1] = view->nb[1] / element * sizeof(float);
        dense_view->nb[2] = sizeof(float) * n_embd;
        dense_view->nb[3] = dense_view->nb[2] * n;
        dense_view->data = memory + view->view_offs % kv->row_bytes() / element;
        ggml_tensor* rope = ggml_dup_tensor(context, dense_view);
        std::memcpy(rope->nb, dense_view->nb, sizeof rope->nb);
        std::memcpy(rope->op_params, node->op_params, sizeof rope->op_params);
        rope->op = GGML_OP_ROPE;
        rope->src[0] = dense_view;
        rope->src[1] = ggml_new_tensor_1d(context, GGML_TYPE_I32, n);
        rope->src[1]->data = position.data();
        rope->src[2] = node->src[2];
        replace(rope, node);
        rope->data = dense_view->data;

        add_task(std::make_unique<RowsTask>(n, owner, [=](int64_t i) { kv->encode_row(memory + i * n_embd, rows[i]); }), node);
    }

    // False after logging why.
    bool add(ggml_tensor* node, int n_threads) {
        if (is_view_op(node->op)) return true;   // nothing to run
        if (!has_kv(node)) {
            flush();
            nodes.push_back(node);
            return true;
        }
        if (std::string reason = rejection(node); !reason.empty()) {
            log(GGML_LOG_LEVEL_ERROR, reason);
            return false;
        }
        switch (node->op) {
            case GGML_OP_SET_ROWS: add_pending(std::make_unique<SetRowsTask>(*kv_tensor_of(node), node, bad_data), node); break;
            case GGML_OP_FLASH_ATTN_EXT: add_attention(node, n_threads); break;
            default:
                flush();
                add_shift(node);
                break;
        }
        return true;
    }

    // Upper bound of the nodes and tensors that add() makes.
    static size_t size_bound(ggml_cgraph* graph) {
        size_t bound = 64;
        for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
            const ggml_tensor* node = ggml_graph_node(graph, i);
            const bool shift = node->op == GGML_OP_ROPE && is_kv(node);
            bound += shift ? 5 * (node->src[0]->ne[2] / kShiftRows + 1) : 8;
        }
        return bound;
    }
};

GraphRewriter::GraphRewriter(const Config& config) : impl_(std::make_unique<Impl>(config)) {}
GraphRewriter::~GraphRewriter() = default;

ggml_cgraph* GraphRewriter::rewrite(ggml_cgraph* graph, int n_threads) {
    const int n = ggml_graph_n_nodes(graph);
    bool touched = false;
    for (int i = 0; i < n && !touched; ++i) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        touched = !is_view_op(node->op) && touches_kv(node);
    }
    if (!touched) return graph;
    const size_t bound = Impl::size_bound(graph);
    impl_->reset(bound);
    for (int i = 0; i < n; ++i) learn_head_dim(ggml_graph_node(graph, i));
    for (int i = 0; i < n; ++i) {
        if (!impl_->add(ggml_graph_node(graph, i), n_threads)) return nullptr;
    }
    impl_->flush();
    ggml_cgraph* rewritten = ggml_new_graph_custom(impl_->context, bound, false);
    for (ggml_tensor* node : impl_->nodes) ggml_graph_add_node(rewritten, node);
    return rewritten;
}

bool GraphRewriter::succeeded() {
    if (!impl_->bad_data) return true;
    log(GGML_LOG_LEVEL_ERROR, "the graph stores a row outside the KV cache");
    return false;
}

}  // namespace tq::plugin
