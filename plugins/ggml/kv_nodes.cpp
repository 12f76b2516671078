#include "kv_nodes.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "dense_view.h"

namespace tq::plugin {
namespace {

std::string refuse_rows(const ggml_tensor* node) {
    const ggml_tensor* root = root_of(node);
    const ggml_tensor* rows = node->src[0];
    if (node->ne[0] == 1 && root->ne[0] != 1) {
        return fmt::format(
            "the cache is written in pieces of one value, where a packed row has {}: llama.cpp stores V so, "
            "transposed, where flash attention is off; run with -fa on (or auto). A model for which llama.cpp "
            "itself turns it off, as for Grok, needs --device none",
            root->ne[0]);
    }
    if (node->ne[0] != root->ne[0] || node->nb[1] != root->nb[1]) {
        return fmt::format("SET_ROWS writes rows of {} values into {}, whose packed rows have {}", node->ne[0],
                           root->name, root->ne[0]);
    }
    if (node->view_src && node->view_offs != 0) {
        return fmt::format("SET_ROWS counts rows of {} from byte {} of it; packed rows are counted from byte 0",
                           root->name, node->view_offs);
    }
    if (node->ne[2] != 1 || node->ne[3] != 1 || rows->ne[2] != 1 || rows->ne[3] != 1) {
        return fmt::format("SET_ROWS writes {}x{} planes of rows into {}; packed rows are written one plane at a time",
                           rows->ne[2], rows->ne[3], root->name);
    }
    if (is_kv(rows))
        return fmt::format("SET_ROWS writes rows of a packed cache into {}: they have to be decoded before",
                           root->name);
    if ((rows->type != GGML_TYPE_F32 && rows->type != GGML_TYPE_F16) || rows->nb[0] != ggml_type_size(rows->type)) {
        return fmt::format("SET_ROWS writes {} rows into {}; only contiguous f32 and f16 rows can be packed",
                           ggml_type_name(rows->type), root->name);
    }
    return "";
}

}  // namespace

bool is_kv(const ggml_tensor* tensor) {
    if (!tensor) return false;
    const ggml_tensor* root = root_of(tensor);
    if (!KvBuffer::is_ours(root)) return false;
    return KvBuffer::is_dummy(root) ? kv_side(root).has_value() : KvBuffer::find(root) != nullptr;
}

bool has_kv(const ggml_tensor* node) {
    return is_kv(node) || std::any_of(std::begin(node->src), std::end(node->src), is_kv);
}

bool stores_in_plain_cache(const ggml_tensor* node) {
    if (node->op != GGML_OP_SET_ROWS) return false;
    const ggml_tensor* root = root_of(node);
    return KvBuffer::is_ours(root) && kv_side(root).has_value() && !is_kv(root);
}

std::string rejection(const ggml_tensor* node) {
    if (is_view_op(node->op)) return "";
    if (is_kv(node)) {
        if (node->op == GGML_OP_SET_ROWS) return refuse_rows(node);
        if (node->op == GGML_OP_ROPE && node->src[0] && node->src[0]->view_src && is_kv(node->src[0])) return "";
        return fmt::format(
            "this llama.cpp writes to the KV cache with {}, which the TurboQuant device can't do on packed rows; "
            "run with --device none, or with a llama.cpp that the README lists",
            ggml_op_name(node->op));
    }
    for (const ggml_tensor* src : node->src) {
        if (!is_kv(src)) continue;
        if (std::string reason = DenseView::problem(src); !reason.empty())
            return fmt::format("{}: {}", ggml_op_name(node->op), reason);
    }
    return "";
}

void learn_head_dim(const ggml_tensor* node) {
    if (node->op != GGML_OP_FLASH_ATTN_EXT) return;
    for (const ggml_tensor* view : {node->src[1], node->src[2]}) {
        KvTensor* kv = view ? kv_tensor_of(view) : nullptr;
        if (kv && root_of(view)->ne[0] == view->ne[0] * view->ne[2]) kv->set_head_dim(static_cast<int>(view->ne[0]));
    }
}

}  // namespace tq::plugin
