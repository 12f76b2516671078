#include "attention_node.h"

#include <cstring>

#include <fmt/format.h>

#include "buffer.h"
#include "turboquant/cpu/engine.h"

namespace tq::plugin {

float attention_param(const ggml_tensor* node, int index) {
    float value;
    std::memcpy(&value, node->op_params + index, sizeof value);
    return value;
}

namespace {

// Says how a K or V operand [head_dim, n_kv, n_head_kv, n_stream] looks into its root.
struct KvView {
    KvTensor* kv = nullptr;
    int64_t first_stream = 0;
};

// Empty reason: a plain view of whole rows of whole streams.
std::string check_view(const ggml_tensor* view, KvView* out) {
    KvTensor* kv = kv_tensor_of(view);
    if (!kv) return "K and V are not both packed";
    const ggml_tensor* root = root_of(view);
    const size_t element = ggml_type_size(view->type);
    const size_t stream_bytes = kv->row_bytes() * kv->n_cells();
    const bool plain = view->nb[0] == element && (view->ne[2] == 1 || view->nb[2] == element * view->ne[0]) &&
                       (view->ne[1] == 1 || view->nb[1] == kv->row_bytes()) &&
                       (view->ne[3] == 1 || view->nb[3] == stream_bytes) && view->ne[0] * view->ne[2] == root->ne[0] &&
                       view->view_offs % stream_bytes == 0;
    if (view->ne[0] * view->ne[2] != root->ne[0]) {
        return fmt::format("{} heads of {} values are taken from cached rows of {}", view->ne[2], view->ne[0],
                           root->ne[0]);
    }
    if (!plain) return "K or V is a view of the cache with other strides than whole rows of whole streams have";
    *out = {kv, static_cast<int64_t>(view->view_offs / stream_bytes)};
    return "";
}

std::string check_mask(const ggml_tensor* node) {
    const ggml_tensor* q = node->src[0];
    const ggml_tensor* mask = node->src[3];
    if (!mask) return "";
    const bool plain = mask->type == GGML_TYPE_F16 && mask->nb[0] == 2 && mask->ne[0] >= node->src[1]->ne[1] &&
                       mask->ne[1] >= q->ne[1] && mask->ne[2] == 1 && (mask->ne[3] == 1 || mask->ne[3] == q->ne[3]);
    return plain ? "" : "the mask has an unusual shape";
}

AttentionShape shape_of(const ggml_tensor* node, int n_threads) {
    const ggml_tensor* q = node->src[0];
    const ggml_tensor* k = node->src[1];
    AttentionShape s;
    s.head_dim_k = static_cast<int>(k->ne[0]);
    s.head_dim_v = static_cast<int>(node->src[2]->ne[0]);
    s.n_head = static_cast<int>(q->ne[2]);
    s.n_head_kv = static_cast<int>(k->ne[2]);
    s.n_tokens = q->ne[1];
    s.n_kv = k->ne[1];
    s.n_stream = q->ne[3];
    s.scale = attention_param(node, 0);
    s.max_bias = attention_param(node, 1);
    s.softcap = attention_param(node, 2);
    s.n_threads = n_threads;
    return s;
}

AttentionInputs inputs_of(const ggml_tensor* node, const KvView& k, const KvView& v) {
    const ggml_tensor* q = node->src[0];
    AttentionInputs in;
    in.q = static_cast<const float*>(q->data);
    in.q_token_stride = q->nb[1];
    in.q_head_stride = q->nb[2];
    in.q_stream_stride = q->nb[3];
    in.k = k.kv->packed();
    in.v = v.kv->packed();
    in.k_first_stream = k.first_stream;
    in.v_first_stream = v.first_stream;
    if (const ggml_tensor* mask = node->src[3]) {
        in.mask = static_cast<const uint16_t*>(mask->data);
        in.mask_token_stride = mask->nb[1];
        in.mask_stream_stride = mask->ne[3] == 1 ? 0 : mask->nb[3];
    }
    if (k.kv->exact() && v.kv->exact()) {
        in.exact_k = k.kv->exact();
        in.exact_v = v.kv->exact();
    }
    if (const ggml_tensor* sinks = node->src[4]) in.sinks = static_cast<const float*>(sinks->data);
    in.out = static_cast<float*>(node->data);
    in.out_head_stride = node->nb[1];
    in.out_token_stride = node->nb[2];
    in.out_stream_stride = node->nb[3];
    return in;
}

}  // namespace

Result<FusedAttention> fuse_attention(const ggml_tensor* node, Isa isa, int n_threads) {
    KvView k, v;
    std::string reason;
    if (node->src[0]->type != GGML_TYPE_F32 || node->src[0]->nb[0] != sizeof(float)) reason = "the query is not f32";
    if (reason.empty()) reason = check_view(node->src[1], &k);
    if (reason.empty()) reason = check_view(node->src[2], &v);
    if (reason.empty()) reason = check_mask(node);
    if (!reason.empty()) return Status(Error::kUnsupported, reason);
    AttentionShape shape = shape_of(node, n_threads);
    if (k.kv->exact() && v.kv->exact()) shape.n_exact = k.kv->exact()->cells().n_per_query();
    if (reason = unsupported_reason(shape); !reason.empty()) return Status(Error::kUnsupported, reason);
    Result<AttentionPlan> plan = AttentionPlan::create(shape, k.kv->codec(), v.kv->codec(), cpu_engine(isa));
    if (!plan.ok()) return plan.status();
    const AttentionInputs inputs = inputs_of(node, k, v);
    if (Status status = plan->bind(inputs); !status.ok()) return status;
    return FusedAttention{plan.value(), inputs};
}

}  // namespace tq::plugin
