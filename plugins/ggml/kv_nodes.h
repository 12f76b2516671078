// This finds which nodes of a ggml graph touch packed KV tensors, and what is to become of them.
#pragma once

#include <string>

#include <ggml.h>

#include "buffer.h"

namespace tq::plugin {

// Ops that compute nothing: their result is an address.
inline bool is_view_op(ggml_op op) {
    return op == GGML_OP_NONE || op == GGML_OP_VIEW || op == GGML_OP_RESHAPE || op == GGML_OP_PERMUTE ||
           op == GGML_OP_TRANSPOSE;
}

// Says whether a tensor or view looks into a packed tensor, or will do so: a dry run of llama.cpp shows us graphs on
// caches that have no memory.
bool is_kv(const ggml_tensor* tensor);

// The node itself or one of its sources looks into a packed tensor.
bool has_kv(const ggml_tensor* node);

// The node stores rows in a cache that would be packed, had its buffer been told of its tensors: an rpc-server takes
// bytes for its client.
bool stores_in_plain_cache(const ggml_tensor* node);

// Why a node that touches a packed tensor can't be computed at all, "" if it can.
std::string rejection(const ggml_tensor* node);

// Learns head_dim from FLASH_ATTN_EXT nodes, which are seen before anything is stored.
void learn_head_dim(const ggml_tensor* node);

}  // namespace tq::plugin
