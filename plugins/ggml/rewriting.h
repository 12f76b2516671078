// One rewritten graph: the nodes, and everything that they point to.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include <ggml-cpp.h>
#include <ggml.h>

#include "attention_node.h"
#include "config.h"
#include "set_rows.h"
#include "task.h"

namespace tq::plugin {

// The graphs of one backend share this: they run one after another. Nodes keep addresses in the arenas, so a graph is
// good for as long as none of them has moved.
struct Workspace {
    Arena attention;                        // workspaces of attention plans
    std::array<Arena, GGML_MAX_SRC> dense;  // decoded rows of each source of a node; shifted rows
    Arena exact[2];                         // exact rows of K and V of the layer at work
    std::atomic<bool> bad_data{false};      // a node met some, in this run

    uint64_t moves() const {
        uint64_t moves = attention.moves() + exact[0].moves() + exact[1].moves();
        for (const Arena& arena : dense) moves += arena.moves();
        return moves;
    }
};

class Rewriting {
  public:
    Rewriting(const Config& config, Workspace& workspace) : config_(config), workspace_(workspace) {}
    Rewriting(const Rewriting&) = delete;
    Rewriting& operator=(const Rewriting&) = delete;

    // False after logging why the graph can't be computed.
    bool build(ggml_cgraph* graph, int n_threads);

    // Must be called before each run, with the graph that this is the rewriting of.
    void start(const ggml_cgraph* original);

    ggml_cgraph* graph() { return graph_; }

    // False if the rewriting holds for one run only: it has read the content of tensors.
    bool reusable() const { return reusable_; }

  private:
    // A block of a packed tensor, and its cells whose position changes, a bit each.
    struct ShiftedBlock {
        int64_t block;
        uint64_t cells;
    };
    void reset(size_t max_tensors, size_t max_nodes);
    bool add(ggml_tensor* node, int n_threads);
    void replace(ggml_tensor* node, const ggml_tensor* original);
    void add_task(std::unique_ptr<Task> task, const ggml_tensor* original);
    void add_pending(std::unique_ptr<Task> task, const ggml_tensor* original);
    void flush();
    void add_set_rows(ggml_tensor* node, int n_threads);
    void stage_exact_rows(KvTensor& kv, const ggml_tensor* node);
    void commit_exact_rows();
    void add_attention(ggml_tensor* node, int n_threads);
    void add_fused_attention(const ggml_tensor* node, const FusedAttention& fused);
    std::unique_ptr<Task> attention_task(const FusedAttention& attention, AttentionPhase phase, void* memory);
    void add_reader(const ggml_tensor* node);
    ggml_tensor* decoded(const ggml_tensor* view, Arena& arena, TaskGroup& decoding);
    ggml_tensor* copy_of(const ggml_tensor* node);
    void add_shift(ggml_tensor* node);
    void add_shift_piece(ggml_tensor* node, KvTensor* kv, std::vector<ShiftedBlock> blocks);

    const Config& config_;
    Workspace& workspace_;
    std::unique_ptr<std::byte[]> memory_;  // memory of the context: our tensors and the graph
    size_t memory_bytes_ = 0;
    ggml_context_ptr context_;
    ggml_cgraph* graph_ = nullptr;
    bool reusable_ = true;
    std::vector<std::unique_ptr<Task>> tasks_;
    std::deque<ItemDealer> dealers_;  // dealers of the tasks' items; side by side, since each run restarts them
    std::deque<std::vector<int32_t>> positions_;  // positions that context shifts rotate by
    // Rows to store and queries to prepare wait here until a node needs them done: nothing else may come between.
    std::unique_ptr<TaskGroup> pending_ = std::make_unique<TaskGroup>();
    const ggml_tensor* pending_node_ = nullptr;
    std::vector<const KvTensor*> pending_stores_;  // tensors into which what is pending stores rows
    // These say whose exact rows, of K and of V, are in the staging memory, and whether what is pending is still to
    // store them.
    struct Staged {
        KvTensor* kv = nullptr;
        bool pending = false;
    };
    std::array<Staged, 2> staged_;
    std::unique_ptr<ExactRowsTask> exact_rows_ = std::make_unique<ExactRowsTask>();  // goes before what is pending
};

}  // namespace tq::plugin
