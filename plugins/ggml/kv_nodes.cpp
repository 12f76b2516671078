#include "kv_nodes.h"

#include <fmt/format.h>

namespace tq::plugin {
namespace {

bool is_kv(const ggml_tensor* tensor) { return tensor && kv_side(root_of(tensor)).has_value(); }

}  // namespace

bool has_kv(const ggml_tensor* node) {
    if (is_kv(node)) return true;
    for (const ggml_tensor* src : node->src) {
        if (!src) return false;
        if (is_kv(src)) return true;
    }
    return false;
}

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

}  // namespace tq::plugin
