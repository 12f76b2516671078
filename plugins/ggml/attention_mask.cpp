#include "attention_mask.h"

#include <algorithm>

namespace tq::plugin {
namespace {

constexpr uint16_t kHalfMinusInfinity = 0xfc00;
constexpr int64_t kRunCells = 64;  // cells that are counted before it is asked whether that is enough

int64_t count_visible(const uint16_t* mask, int64_t n) {
    int64_t visible = 0;
    for (int64_t i = 0; i < n; ++i) visible += mask[i] != kHalfMinusInfinity;
    return visible;
}

bool sees_at_most(const uint16_t* mask, int64_t n_kv, int64_t limit) {
    int64_t visible = 0;
    for (int64_t cell = 0; cell < n_kv && visible <= limit; cell += kRunCells)
        visible += count_visible(mask + cell, std::min(kRunCells, n_kv - cell));
    return visible <= limit;
}

}  // namespace

std::string check_mask(const ggml_tensor* attention) {
    const ggml_tensor* q = attention->src[0];
    const ggml_tensor* mask = attention->src[3];
    if (!mask) return "";
    const bool plain = mask->type == GGML_TYPE_F16 && mask->nb[0] == 2 && mask->ne[0] >= attention->src[1]->ne[1] &&
                       mask->ne[1] >= q->ne[1] && mask->ne[2] == 1 && (mask->ne[3] == 1 || mask->ne[3] == q->ne[3]);
    return plain ? "" : "the mask has an unusual shape";
}

bool find_sinks(const ggml_tensor* attention, int64_t n_sink, std::span<uint8_t> rows) {
    const ggml_tensor* mask = attention->src[3];
    const int64_t n_tokens = attention->src[0]->ne[1], n_stream = attention->src[0]->ne[3];
    if (!mask || mask->op != GGML_OP_NONE || !mask->data || !check_mask(attention).empty() ||
        n_tokens * n_stream != std::ssize(rows))
        return false;
    for (int64_t i = 0; i < std::ssize(rows); ++i) {
        const char* row = static_cast<const char*>(mask->data) + i % n_tokens * mask->nb[1] +
                          (mask->ne[3] == 1 ? 0 : i / n_tokens * mask->nb[3]);
        rows[i] = sees_at_most(reinterpret_cast<const uint16_t*>(row), attention->src[1]->ne[1], n_sink);
    }
    return true;
}

}  // namespace tq::plugin
