// The graph node that attends to packed keys and values.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "layer_codec.h"

namespace tq::mlx_plugin {

// Cells of a stream, and the newest of them that are the call's tokens.
struct StreamCells {
    int64_t n_kv = 0;
    int64_t n_tokens = 0;
    int64_t first_exact = 0;  // of the cells before the tokens, those from here on have exact rows, beside the sinks
};

struct AttendCall {
    std::vector<StreamCells> streams;
    float scale = 1;
    float softcap = 0;  // 0: none
    bool causal = true;
    int64_t window = 0;  // 0: none
};

// Rows kept exactly of one side: those before the call's tokens, as append() left them (append.h), and the tokens' own,
// (n_stream, n_head_kv, n_tokens, head_dim).
struct ExactSide {
    mx::array before;
    mx::array tokens;
};

struct AttendInputs {
    mx::array q;                                        // (n_stream, n_head, n_tokens, head_dim_k) floats
    mx::array keys, values;                             // block records
    std::optional<mx::array> mask;                      // (1 or n_stream, n_tokens, n_kv) f16, added to the logits
    std::optional<mx::array> sinks;                     // (n_head) f32 logits
    std::optional<ExactSide> exact_keys, exact_values;  // both, if and only if the preset has exact cells
};

// (n_stream, n_head, n_tokens, head_dim_v) of q's type; rows behind a stream's tokens are zeros. Throws
// std::invalid_argument naming the shape that is not supported.
mx::array attend(const LayerCodecPtr& codec, const AttendCall& call, const AttendInputs& inputs);

// Why attend() does not take a call with so many query heads on MLX's present device, or "": then decode().
std::string unsupported_reason(const LayerCodec& codec, int n_head, bool has_mask);

}  // namespace tq::mlx_plugin
