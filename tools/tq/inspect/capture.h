// Keys, values and queries of a model, as it computes them on a text.
#pragma once

#include <map>
#include <vector>

#include "eval/host.h"
#include "turboquant/format/preset.h"

namespace tq::tool {

// Holds what one layer wrote to its cache, row by row, and the queries that met it.
struct CapturedLayer {
    int head_dim_k = 0, head_dim_v = 0;
    int64_t n_embd_k = 0, n_embd_v = 0;  // values a row
    std::vector<float> keys, values;     // [token][n_embd]
    int n_head = 0;
    float scale = 1;             // factor of q.k in the softmax
    std::vector<float> queries;  // [token][head][head_dim_k]

    int head_dim(Side side) const { return side == Side::kKey ? head_dim_k : head_dim_v; }
    int64_t n_embd(Side side) const { return side == Side::kKey ? n_embd_k : n_embd_v; }
    const std::vector<float>& rows(Side side) const { return side == Side::kKey ? keys : values; }
};

using Captured = std::map<int, CapturedLayer>;  // keyed by layer

// Runs the tokens through the model with an f16 cache. Errors: as of Host, kUnsupported where llama.cpp fails.
Result<Captured> capture(Host& host, const Tokens& tokens);

}  // namespace tq::tool
