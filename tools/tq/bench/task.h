// The numbers that all contestants of a case share: shapes, queries, rows of keys and values, the mask.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "turboquant/attention/params.h"

namespace tq::tool {

struct HeadShape {
    int n_head = 0, n_head_kv = 0, head_dim_k = 0, head_dim_v = 0;

    int64_t n_embd_k() const { return int64_t{n_head_kv} * head_dim_k; }
    int64_t n_embd_v() const { return int64_t{n_head_kv} * head_dim_v; }
    std::string name() const;  // the shape as it is given
};

// "heads/KV heads/head_dim" or "heads/KV heads/K's head_dim/V's head_dim". Error: kInvalidArgument.
Result<HeadShape> parse_shape(const std::string& text);

// Rows that are written to the cells in turn: distinct enough for any cell, few enough to be made quickly.
inline constexpr int64_t kPoolRows = 512;

struct Task {
    HeadShape shape;
    int64_t depth = 0;  // cells attended to, those of the batch among them
    int64_t batch = 1;  // query tokens
    int64_t n_layer = 1;

    std::vector<float> q;        // (head_dim_k, n_head, batch)
    std::vector<float> k, v;     // (n_embd, kPoolRows)
    std::vector<uint16_t> mask;  // f16 (depth, batch): causal, the batch being the last cells

    float scale() const;
    AttentionShape attention_shape(int n_threads) const;
};

Task make_task(const HeadShape& shape, int64_t depth, int64_t batch);

}  // namespace tq::tool
