// The mask of a FLASH_ATTN_EXT node: f16 [n_kv, n_tokens or more, 1, n_stream or 1], -inf where a token does not see a
// cell.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <ggml.h>

namespace tq::plugin {

// Why fused attention does not take the node's mask, "" if it does or if there is none.
std::string check_mask(const ggml_tensor* attention);

// Says of each row that is stored for the node's tokens, stream after stream, whether its token sees at most n_sink
// cells (1) or more (0): with so few it is among the first of its sequence, wherever in the stream that lies. False,
// and nothing said, if rows and tokens are not the same or there is no mask that is known before the graph runs.
bool find_sinks(const ggml_tensor* attention, int64_t n_sink, std::span<uint8_t> rows);

}  // namespace tq::plugin
