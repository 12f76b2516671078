#include "graph_snapshot.h"

#include <algorithm>
#include <cstring>

#include "kv_nodes.h"

namespace tq::plugin {
namespace {

constexpr int kAhead = 16;  // nodes to ask the memory for before their turn

void prefetch(const ggml_tensor* tensor) {
    const char* bytes = reinterpret_cast<const char*>(tensor);
    for (size_t line = 0; line < offsetof(ggml_tensor, name); line += 64) __builtin_prefetch(bytes + line);
}

uintptr_t address(const void* p) {
    return reinterpret_cast<uintptr_t>(p);
}

// Calls fn with the links of a node, in their order, as long as it returns true. Returns whether it always did.
template <class Fn>
bool each_link(const ggml_tensor* node, Fn fn) {
    if (!fn(address(node)) || !fn(static_cast<uintptr_t>(node->op)) || !fn(address(node->view_src))) return false;
    for (const ggml_tensor* src : node->src) {
        if (!fn(address(src))) return false;
        if (!src) break;
    }
    return true;
}

// Attention is watched in any case: its operands need not be nodes of this graph, and may come to look into the cache.
bool is_watched(const ggml_tensor* node) {
    return node->op == GGML_OP_FLASH_ATTN_EXT || (!is_view_op(node->op) && has_kv(node));
}

// The watched nodes, each before its sources; each tensor once.
std::vector<const ggml_tensor*> watched_tensors(ggml_cgraph* graph) {
    std::vector<const ggml_tensor*> tensors;
    auto add = [&](const ggml_tensor* tensor) {
        if (tensor && std::find(tensors.begin(), tensors.end(), tensor) == tensors.end()) tensors.push_back(tensor);
    };
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        if (!is_watched(node)) continue;
        add(node);
        for (const ggml_tensor* src : node->src) add(src);
    }
    return tensors;
}

}  // namespace

void GraphSnapshot::take(ggml_cgraph* graph) {
    n_nodes_ = ggml_graph_n_nodes(graph);
    links_.clear();
    for (int i = 0; i < n_nodes_; ++i) {
        each_link(ggml_graph_node(graph, i), [this](uintptr_t link) {
            links_.push_back(link);
            return true;
        });
    }
    operands_.clear();
    for (const ggml_tensor* tensor : watched_tensors(graph)) {
        Operand& operand = operands_.emplace_back(Operand{tensor, {}});
        std::memcpy(operand.bytes.data(), tensor, operand.bytes.size());
    }
}

bool GraphSnapshot::matches(ggml_cgraph* graph) const {
    if (ggml_graph_n_nodes(graph) != n_nodes_) return false;
    ggml_tensor* const* nodes = ggml_graph_nodes(graph);
    const uintptr_t* expected = links_.data();
    for (int i = 0; i < n_nodes_; ++i) {
        prefetch(nodes[std::min(i + kAhead, n_nodes_ - 1)]);
        if (!each_link(nodes[i], [&](uintptr_t link) { return link == *expected++; })) return false;
    }
    return std::all_of(operands_.begin(), operands_.end(), [](const Operand& operand) {
        return std::memcmp(operand.tensor, operand.bytes.data(), operand.bytes.size()) == 0;
    });
}

}  // namespace tq::plugin
