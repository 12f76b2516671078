#include "inspect/capture.h"

#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>

namespace tq::tool {
namespace {

constexpr int kBatch = 512;

const ggml_tensor* root_of(const ggml_tensor* tensor) {
    while (tensor->view_src) tensor = tensor->view_src;
    return tensor;
}

// The layer in "cache_k_l12", "cache_swa_k_l3".
std::optional<int> layer_of(const ggml_tensor* cache) {
    const std::string_view name = cache->name;
    const size_t at = name.rfind("_l");
    if (!name.starts_with("cache_") || at == std::string_view::npos) return std::nullopt;
    return std::atoi(cache->name + at + 2);
}

bool is_value_cache(const ggml_tensor* cache) {
    return std::string_view(cache->name).find("_v_l") != std::string_view::npos;
}

bool is_wanted(const ggml_tensor* node) {
    if (node->op == GGML_OP_FLASH_ATTN_EXT) return layer_of(root_of(node->src[1])).has_value();
    return node->op == GGML_OP_SET_ROWS && layer_of(root_of(node)) && node->src[0]->type == GGML_TYPE_F32;
}

void take_rows(const ggml_tensor* node, Captured& captured) {
    const ggml_tensor* rows = node->src[0];
    CapturedLayer& layer = captured[*layer_of(root_of(node))];
    const bool value = is_value_cache(root_of(node));
    (value ? layer.n_embd_v : layer.n_embd_k) = rows->ne[0];
    std::vector<float>& all = value ? layer.values : layer.keys;
    for (int64_t i = 0; i < rows->ne[1]; ++i) {
        const auto* row = reinterpret_cast<const float*>(static_cast<const char*>(rows->data) + i * rows->nb[1]);
        all.insert(all.end(), row, row + rows->ne[0]);
    }
}

void take_queries(const ggml_tensor* node, Captured& captured) {
    const ggml_tensor* q = node->src[0];
    CapturedLayer& layer = captured[*layer_of(root_of(node->src[1]))];
    layer.head_dim_k = static_cast<int>(node->src[1]->ne[0]);
    layer.head_dim_v = static_cast<int>(node->src[2]->ne[0]);
    layer.n_head = static_cast<int>(q->ne[2]);
    std::memcpy(&layer.scale, node->op_params, sizeof(float));
    if (q->type != GGML_TYPE_F32) return;
    for (int64_t token = 0; token < q->ne[1]; ++token) {
        for (int64_t head = 0; head < q->ne[2]; ++head) {
            const char* at = static_cast<const char*>(q->data) + token * q->nb[1] + head * q->nb[2];
            const auto* row = reinterpret_cast<const float*>(at);
            layer.queries.insert(layer.queries.end(), row, row + q->ne[0]);
        }
    }
}

bool watch(ggml_tensor* node, bool ask, void* captured) {
    if (ask) return is_wanted(node);
    if (!is_wanted(node)) return true;
    auto& all = *static_cast<Captured*>(captured);
    if (node->op == GGML_OP_SET_ROWS)
        take_rows(node, all);
    else
        take_queries(node, all);
    return true;
}

}  // namespace

Result<Captured> capture(Host& host, const Tokens& tokens) {
    Captured captured;
    const int n = static_cast<int>(tokens.size());
    Result<Session> session =
        host.open(CacheChoice::parse("f16").value(), n, std::min(n, kBatch), std::min(n, kBatch), {watch, &captured});
    if (!session.ok()) return session.status();
    for (int begin = 0; begin < n; begin += kBatch) {
        const int count = std::min(kBatch, n - begin);
        if (!session->decode(tokens.data() + begin, count, begin, count - 1)) {
            return Status(Error::kUnsupported, "llama.cpp failed to decode");
        }
    }
    return captured;
}

}  // namespace tq::tool
