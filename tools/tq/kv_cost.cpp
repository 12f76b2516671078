#include "kv_cost.h"

#include "ggml_api.h"
#include "turboquant/cache/exact_rows.h"
#include "turboquant/codec/layout.h"

namespace tq::tool {
namespace {

// A model has been read with it.
const GgmlApi& ggml() {
    return *ggml_api().value();
}

// Sums fn(layer, side, n_embd) over the cached rows of all layers.
template <class Fn>
size_t sum_rows(const GgufModel& model, Fn fn) {
    size_t sum = 0;
    for (size_t i = 0; i < model.layers.size(); ++i) {
        const KvLayer& layer = model.layers[i];
        if (layer.n_embd_k > 0) sum += fn(static_cast<int>(i), Side::kKey, layer.n_embd_k);
        if (layer.n_embd_v > 0) sum += fn(static_cast<int>(i), Side::kValue, layer.n_embd_v);
    }
    return sum;
}

KvCost make_cost(std::string type, size_t bytes, size_t values) {
    return {std::move(type), bytes, 8.0 * static_cast<double>(bytes) / static_cast<double>(values)};
}

// Empty if a head is no multiple of a type's block: llama.cpp refuses it.
std::optional<size_t> ggml_kv_bytes(const GgufModel& model, int64_t n_cells, int key_type, int value_type) {
    bool fits = true;
    const size_t bytes = sum_rows(model, [&](int, Side side, int64_t n_embd) {
        const ggml_type type = static_cast<ggml_type>(side == Side::kKey ? key_type : value_type);
        const int64_t head_size = side == Side::kKey ? model.key_length : model.value_length;
        if (head_size % ggml().blck_size(type) != 0) {
            fits = false;
            return size_t{0};
        }
        return ggml().row_size(type, n_embd) * static_cast<size_t>(n_cells);
    });
    if (!fits) return std::nullopt;
    return bytes;
}

}  // namespace

int64_t cells_of_context(int64_t ctx) {
    return (ctx + kCellPadding - 1) / kCellPadding * kCellPadding;
}

size_t kv_values(const GgufModel& model, int64_t n_cells) {
    return sum_rows(model, [&](int, Side, int64_t n_embd) { return static_cast<size_t>(n_embd * n_cells); });
}

std::optional<KvCost> ggml_kv_cost(const GgufModel& model, int64_t n_cells, int type) {
    const std::optional<size_t> bytes = ggml_kv_bytes(model, n_cells, type, type);
    if (!bytes) return std::nullopt;
    return make_cost(ggml().type_name(static_cast<ggml_type>(type)), *bytes, kv_values(model, n_cells));
}

std::optional<double> ggml_kv_bits(const GgufModel& model, int64_t n_cells, int key_type, int value_type) {
    const std::optional<size_t> bytes = ggml_kv_bytes(model, n_cells, key_type, value_type);
    if (!bytes) return std::nullopt;
    return make_cost("", *bytes, kv_values(model, n_cells)).bits_per_value;
}

KvCost packed_kv_cost(const GgufModel& model, int64_t n_cells, const LayerPresets& presets) {
    const size_t bytes = sum_rows(model, [&](int layer, Side side, int64_t n_embd) {
        const Result<PackedLayout> layout = PackedLayout::create(presets.of(layer), side, n_embd, n_cells, 1);
        if (!layout.ok()) return ggml().row_size(GGML_TYPE_F16, n_embd) * static_cast<size_t>(n_cells);
        return layout->bytes() + ExactRows::bytes(presets.exact(), n_embd, layout->n_cells, 1);
    });
    return make_cost(presets.name(), bytes, kv_values(model, n_cells));
}

}  // namespace tq::tool
