#include "rewriting.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "abi.h"
#include "dense_view.h"
#include "kv_nodes.h"
#include "log.h"

namespace tq::plugin {
namespace {

constexpr int64_t kShiftBlocks = 4;  // blocks of a context shift that are dense at the same time

void run_task(ggml_tensor*, int thread, int n_threads, void* task) {
    static_cast<Task*>(task)->run(thread, n_threads);
}

// Upper bound of the nodes and tensors that add() makes for a node.
size_t size_bound(const ggml_tensor* node) {
    if (is_view_op(node->op) || !has_kv(node)) return 0;
    return node->op == GGML_OP_ROPE
               ? 5 * ((node->src[0]->ne[2] / kBlockCells + root_of(node->src[0])->ne[2]) / kShiftBlocks + 1)
               : 8 + GGML_MAX_SRC;
}

size_t size_bound(ggml_cgraph* graph) {
    size_t bound = 4;  // the last flush(), commit_exact_rows()
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) bound += size_bound(ggml_graph_node(graph, i));
    return bound;
}

}  // namespace

void Rewriting::reset(size_t max_tensors, size_t max_nodes) {
    tasks_.clear();
    dealers_.clear();
    positions_.clear();
    pending_ = std::make_unique<TaskGroup>();
    pending_stores_.clear();
    staged_ = {};
    exact_rows_ = std::make_unique<ExactRowsTask>();
    reusable_ = true;
    context_.reset();
    const size_t bytes = max_tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(max_nodes, false);
    if (memory_bytes_ < bytes) {
        memory_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
        memory_bytes_ = bytes;
    }
    context_.reset(ggml_init({memory_bytes_, memory_.get(), /*no_alloc=*/true}));
    graph_ = ggml_new_graph_custom(context_.get(), max_nodes, false);
}

bool Rewriting::build(ggml_cgraph* graph, int n_threads) {
    const int n = ggml_graph_n_nodes(graph);
    const size_t bound = size_bound(graph);
    for (;;) {
        const uint64_t moves = workspace_.moves();
        reset(bound, n + bound);
        for (int i = 0; i < n; ++i) {
            if (!add(ggml_graph_node(graph, i), n_threads)) return false;
        }
        flush();
        commit_exact_rows();
        if (workspace_.moves() == moves) return true;
        // An arena grew and has moved away from the nodes made before: once more, with arenas that are large enough.
    }
}

// ggml fuses ops (RMS_NORM and MUL) whose intermediate result has one use. How many there are the original graph knows.
void Rewriting::start(const ggml_cgraph* original) {
    const auto* from = reinterpret_cast<const abi::Graph*>(original);
    auto* to = reinterpret_cast<abi::Graph*>(graph_);
    to->use_counts = from->use_counts;
    to->visited = from->visited;
    workspace_.bad_data = false;
    for (ItemDealer& dealer : dealers_) dealer.restart();
}

// Puts a node of ours in the place of `original`: the scheduler's data, buffer and flags (without the compute flag the
// CPU backend skips a node silently).
void Rewriting::replace(ggml_tensor* node, const ggml_tensor* original) {
    node->data = original->data;
    node->buffer = original->buffer;
    node->flags = original->flags;
    ggml_graph_add_node(graph_, node);
}

void Rewriting::add_task(std::unique_ptr<Task> task, const ggml_tensor* original) {
    ggml_tensor* none[1] = {};
    ggml_context* ctx = context_.get();
    replace(ggml_custom_4d(ctx, GGML_TYPE_F32, 1, 1, 1, 1, none, 0, run_task, GGML_N_TASKS_MAX, task.get()), original);
    tasks_.push_back(std::move(task));
}

void Rewriting::add_pending(std::unique_ptr<Task> task, const ggml_tensor* original) {
    pending_->add(std::move(task));
    pending_node_ = original;
}

void Rewriting::flush() {
    if (pending_->empty()) return;
    if (!exact_rows_->empty()) add_task(std::exchange(exact_rows_, std::make_unique<ExactRowsTask>()), pending_node_);
    for (Staged& staged : staged_) staged.pending = false;
    add_task(std::exchange(pending_, std::make_unique<TaskGroup>()), pending_node_);
    pending_stores_.clear();
}

void Rewriting::add_set_rows(ggml_tensor* node, int n_threads) {
    KvTensor& kv = *kv_tensor_of(node);
    // The tasks of a group run side by side: of two that store into one tensor the second waits for the first.
    if (std::find(pending_stores_.begin(), pending_stores_.end(), &kv) != pending_stores_.end()) flush();
    pending_stores_.push_back(&kv);
    if (kv.exact()) stage_exact_rows(kv, node);
    add_pending(std::make_unique<SetRowsTask>(kv, node, n_threads, workspace_.bad_data), node);
}

// All layers share the staging memory: who has it gives it up first.
void Rewriting::stage_exact_rows(KvTensor& kv, const ggml_tensor* node) {
    const size_t side = kv.format().side == Side::kKey ? 0 : 1;
    Staged& staged = staged_[side];
    if (staged.pending) flush();
    if (staged.kv) exact_rows_->commit(*staged.kv);
    const size_t bytes = sizeof(uint16_t) * static_cast<size_t>(node->src[0]->ne[0] * node->src[0]->ne[1]);
    exact_rows_->begin(kv, node, static_cast<uint16_t*>(workspace_.exact[side].reserve(bytes)));
    staged = {&kv, true};
}

// Nothing is staged between graphs.
void Rewriting::commit_exact_rows() {
    for (Staged& staged : staged_) {
        if (staged.kv) exact_rows_->commit(*staged.kv);
        staged = {};
    }
    if (!exact_rows_->empty()) add_task(std::exchange(exact_rows_, std::make_unique<ExactRowsTask>()), pending_node_);
}

void Rewriting::add_attention(ggml_tensor* node, int n_threads) {
    if (config_.attention == AttentionMode::kFused) {
        Result<FusedAttention> fused = fuse_attention(node, config_.isa, n_threads);
        if (fused.ok()) return add_fused_attention(node, fused.value());
        log_once(GGML_LOG_LEVEL_WARN,
                 "attention takes the dense path (same cache, slower): " + fused.status().message());
    }
    if (config_.presets.exact().any())
        log_once(GGML_LOG_LEVEL_WARN,
                 "the dense path decodes all cells: the rows of sinks and window in f16 are not used");
    add_reader(node);
}

void Rewriting::add_fused_attention(const ggml_tensor* node, const FusedAttention& fused) {
    void* memory = workspace_.attention.reserve(fused.plan.workspace_bytes());
    add_pending(attention_task(fused, AttentionPhase::kPrepare, memory), node);
    flush();
    for (AttentionPhase phase : {AttentionPhase::kAttend, AttentionPhase::kMerge}) {
        if (fused.plan.n_items(phase) > 0) add_task(attention_task(fused, phase, memory), node);
    }
}

std::unique_ptr<Task> Rewriting::attention_task(const FusedAttention& attention, AttentionPhase phase, void* memory) {
    return std::make_unique<AttentionTask>(attention, phase, memory, dealers_.emplace_back());
}

// ggml's own op, on decoded copies of the rows that its views of packed tensors cover.
void Rewriting::add_reader(const ggml_tensor* node) {
    flush();
    auto decoding = std::make_unique<TaskGroup>();
    ggml_tensor* copy = copy_of(node);
    for (size_t i = 0; i < workspace_.dense.size(); ++i) {
        if (is_kv(node->src[i])) copy->src[i] = decoded(node->src[i], workspace_.dense[i], *decoding);
    }
    add_task(std::move(decoding), node);
    replace(copy, node);
}

// The same view on the rows that it covers, in nominal form, which a task of `decoding` writes to the arena.
ggml_tensor* Rewriting::decoded(const ggml_tensor* view, Arena& arena, TaskGroup& decoding) {
    KvTensor* kv = kv_tensor_of(view);
    kv->codec();  // made here, before threads share it
    const DenseView dense(view);
    auto* rows = static_cast<uint8_t*>(arena.reserve(dense.bytes()));
    auto decode = [=](int64_t i) {
        kv->decode_nominal(dense.source_row(i), rows + static_cast<size_t>(i) * dense.row_bytes);
    };
    decoding.add(std::make_unique<RowsTask>(
        dense.n_rows(), [](int64_t i) { return i; }, decode));

    ggml_tensor* copy = ggml_new_tensor(context_.get(), view->type, GGML_MAX_DIMS, view->ne);
    std::memcpy(copy->nb, dense.nb, sizeof copy->nb);
    copy->data = rows + dense.offset;
    return copy;
}

// A node of ours that computes the same from the same sources.
ggml_tensor* Rewriting::copy_of(const ggml_tensor* node) {
    ggml_tensor* copy = ggml_new_tensor(context_.get(), node->type, GGML_MAX_DIMS, node->ne);
    std::memcpy(copy->nb, node->nb, sizeof copy->nb);
    std::memcpy(copy->op_params, node->op_params, sizeof copy->op_params);
    std::memcpy(copy->src, node->src, sizeof copy->src);
    copy->op = node->op;
    copy->extra = node->extra;
    ggml_set_name(copy, node->name);
    return copy;
}

// In-place ROPE on keys: a context shift. Only blocks with rows whose position changes are decoded, rotated and encoded
// again.
void Rewriting::add_shift(ggml_tensor* node) {
    const ggml_tensor* view = node->src[0];
    KvTensor* kv = kv_tensor_of(view);
    kv->codec();        // made here, before threads share it
    reusable_ = false;  // the rows to move are chosen here
    const auto* shift = static_cast<const int32_t*>(node->src[1]->data);
    std::vector<ShiftedBlock> blocks;
    for (int64_t row = 0; row < view->ne[2]; ++row) {
        if (shift[row] == 0) continue;
        const int64_t block = kv->block_of_row(row);
        if (blocks.empty() || blocks.back().block != block) blocks.push_back({block, 0});
        blocks.back().cells |= uint64_t{1} << (row - kv->first_row_of_block(block));
    }
    for (size_t begin = 0; begin < blocks.size(); begin += kShiftBlocks) {
        const size_t end = std::min(blocks.size(), begin + kShiftBlocks);
        add_shift_piece(node, kv, std::vector<ShiftedBlock>(blocks.begin() + begin, blocks.begin() + end));
    }
}

// Rows that do not move are rotated by nothing and not stored.
void Rewriting::add_shift_piece(ggml_tensor* node, KvTensor* kv, std::vector<ShiftedBlock> blocks) {
    const ggml_tensor* view = node->src[0];
    const auto* shift = static_cast<const int32_t*>(node->src[1]->data);
    const int64_t n_blocks = std::ssize(blocks), n = n_blocks * kBlockCells, n_embd = kv->format().n_embd;
    const size_t element = ggml_type_size(view->type);
    auto* memory =
        static_cast<float*>(workspace_.dense[0].reserve(sizeof(float) * n_embd * kBlockCells * kShiftBlocks));
    std::vector<int32_t>& position = positions_.emplace_back(n, 0);
    for (int64_t b = 0; b < n_blocks; ++b) {
        for (uint64_t left = blocks[b].cells; left != 0; left &= left - 1) {
            const int64_t i = std::countr_zero(left);
            position[b * kBlockCells + i] = shift[kv->first_row_of_block(blocks[b].block) + i];
        }
    }

    const auto rows_of = [=](int64_t b) { return memory + b * kBlockCells * n_embd; };
    const auto owner = [](int64_t b) { return b; };
    add_task(
        std::make_unique<RowsTask>(n_blocks, owner, [=](int64_t b) { kv->load_block(blocks[b].block, rows_of(b)); }),
        node);

    ggml_tensor* dense_view = ggml_new_tensor_3d(context_.get(), GGML_TYPE_F32, view->ne[0], view->ne[1], n);
    dense_view->nb[1] = view->nb[1] / element * sizeof(float);
    dense_view->nb[2] = sizeof(float) * n_embd;
    dense_view->nb[3] = dense_view->nb[2] * n;
    dense_view->data = memory + view->view_offs % kv->row_bytes() / element;
    ggml_tensor* rope = ggml_dup_tensor(context_.get(), dense_view);
    std::memcpy(rope->nb, dense_view->nb, sizeof rope->nb);
    std::memcpy(rope->op_params, node->op_params, sizeof rope->op_params);
    rope->op = GGML_OP_ROPE;
    rope->src[0] = dense_view;
    rope->src[1] = ggml_new_tensor_1d(context_.get(), GGML_TYPE_I32, n);
    rope->src[1]->data = position.data();
    rope->src[2] = node->src[2];
    replace(rope, node);
    rope->data = dense_view->data;

    add_task(std::make_unique<RowsTask>(
                 n_blocks, owner, [=](int64_t b) { kv->store_block(rows_of(b), blocks[b].block, blocks[b].cells); }),
             node);
}

// False after logging why.
bool Rewriting::add(ggml_tensor* node, int n_threads) {
    if (is_view_op(node->op)) return true;  // nothing to run
    if (!has_kv(node)) {
        flush();
        ggml_graph_add_node(graph_, node);
        return true;
    }
    if (std::string reason = rejection(node); !reason.empty()) {
        log(GGML_LOG_LEVEL_ERROR, reason);
        return false;
    }
    if (node->op == GGML_OP_FLASH_ATTN_EXT) {
        add_attention(node, n_threads);
    } else if (!is_kv(node)) {
        log_once(GGML_LOG_LEVEL_WARN,
                 fmt::format("{} reads the packed KV cache: the rows that it reads are decoded each time, which is "
                             "slow; only FLASH_ATTN_EXT reads packed rows as they are",
                             ggml_op_name(node->op)));
        add_reader(node);
    } else if (node->op == GGML_OP_SET_ROWS) {
        add_set_rows(node, n_threads);
    } else {
        flush();
        add_shift(node);
    }
    return true;
}

}  // namespace tq::plugin
