// Which cells a query token may see, before its mask is asked: what the lengths of its stream, causality and the window
// leave.
#pragma once

#include "turboquant/attention/params.h"
#include "turboquant/attention/visible_cells.h"
#include "turboquant/base/inline.h"

namespace tq {

struct StreamLengths {
    int64_t n_kv, n_tokens;
};

TQ_INLINE StreamLengths lengths_of_stream(const AttentionShape& s, const AttentionInputs& in, int64_t stream) {
    return {in.n_kv_of_stream ? in.n_kv_of_stream[stream] : s.n_kv,
            in.n_tokens_of_stream ? in.n_tokens_of_stream[stream] : s.n_tokens};
}

TQ_INLINE constexpr CellRange cells_of_token(const AttentionShape& s, const StreamLengths& stream, int64_t token) {
    return visible_cells(s.causal, s.window, stream.n_kv, stream.n_tokens, token);
}

// Of tokens [first, last]: later ones see no earlier cell, and all that the earlier ones see in between.
TQ_INLINE constexpr CellRange cells_of_tokens(const AttentionShape& s, const StreamLengths& stream, int64_t first,
                                              int64_t last) {
    return {cells_of_token(s, stream, first).first, cells_of_token(s, stream, last).end};
}

// Of all tokens of a stream.
TQ_INLINE CellRange cells_of_stream(const AttentionShape& s, const StreamLengths& stream) {
    if (stream.n_tokens == 0) return {0, 0};
    return cells_of_tokens(s, stream, 0, stream.n_tokens - 1);
}

}  // namespace tq
