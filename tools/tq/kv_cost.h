// What a model's KV cache costs in llama.cpp, byte for byte.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "gguf_model.h"
#include "turboquant/codec/layer_presets.h"

namespace tq::tool {

struct KvCost {
    std::string type;  // "f16", "q8_0", a preset's name
    size_t bytes = 0;
    double bits_per_value = 0;
};

// llama.cpp makes the context a multiple of this many cells.
inline constexpr int64_t kCellPadding = 256;
int64_t cells_of_context(int64_t ctx);

// Values that n_cells cells hold.
size_t kv_values(const GgufModel& model, int64_t n_cells);

// ggml_type: one that llama.cpp takes for -ctk and -ctv. Empty if a row is no multiple of its block.
std::optional<KvCost> ggml_kv_cost(const GgufModel& model, int64_t n_cells, int ggml_type);
// Bits per value with another type for V; empty as above.
std::optional<double> ggml_kv_bits(const GgufModel& model, int64_t n_cells, int key_type, int value_type);

// Rows that can't be packed (no multiple of 16 values) are counted as the f16 that the plugin leaves them in.
KvCost packed_kv_cost(const GgufModel& model, int64_t n_cells, const LayerPresets& presets);

}  // namespace tq::tool
