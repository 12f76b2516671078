#include "graph.h"

#include <algorithm>
#include <utility>

#include "kv_nodes.h"
#include "log.h"

namespace tq::plugin {
namespace {

bool computes_on_kv(ggml_cgraph* graph) {
    bool plain = false;
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        if (!is_view_op(node->op) && has_kv(node)) return true;
        plain = plain || stores_in_plain_cache(node);
    }
    if (plain) {
        log_once(GGML_LOG_LEVEL_WARN,
                 "this KV cache is not packed: it lies in a buffer of plain bytes, as an rpc-server allocates them for "
                 "its clients; its size and results are those of the CPU device");
    }
    return false;
}

}  // namespace

ggml_cgraph* GraphRewriter::rewrite(ggml_cgraph* graph, int n_threads) {
    ++calls_;
    Slot* slot = find(graph, n_threads);
    if (!slot) {
        if (!computes_on_kv(graph)) return graph;
        slot = make(graph, n_threads);
        if (!slot) return nullptr;
    }
    slot->used = calls_;
    slot->rewriting->start(graph);
    return slot->rewriting->graph();
}

GraphRewriter::Slot* GraphRewriter::find(ggml_cgraph* graph, int n_threads) {
    for (Slot& slot : slots_) {
        if (slot.reusable && slot.n_threads == n_threads && slot.generation == KvTensor::generation() &&
            slot.moves == workspace_.moves() && slot.snapshot.matches(graph)) {
            return &slot;
        }
    }
    return nullptr;
}

GraphRewriter::Slot* GraphRewriter::make(ggml_cgraph* graph, int n_threads) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) learn_head_dim(ggml_graph_node(graph, i));
    auto value = [](const Slot& slot) { return slot.reusable ? slot.used : 0; };
    Slot& slot = *std::min_element(slots_.begin(), slots_.end(),
                                   [&](const Slot& a, const Slot& b) { return value(a) < value(b); });
    slot.reusable = false;
    if (!slot.rewriting) slot.rewriting = std::make_unique<Rewriting>(config_, workspace_);
    slot.generation = KvTensor::generation();
    if (!slot.rewriting->build(graph, n_threads)) return nullptr;
    slot.snapshot.take(graph);
    slot.n_threads = n_threads;
    slot.moves = workspace_.moves();
    slot.reusable = slot.rewriting->reusable();  // last: it throws where there is no memory
    return &slot;
}

bool GraphRewriter::succeeded() {
    if (!workspace_.bad_data) return true;
    log(GGML_LOG_LEVEL_ERROR, "the graph stores a row outside the KV cache");
    return false;
}

}  // namespace tq::plugin
