// Exact rows (cache/exact_rows.h) of nodes that run on a GPU: they are kept and gathered by MLX's own operations, and
// the lists of which query takes which are made on the host, as cells alone say it.
#pragma once

#include <cstdint>
#include <vector>

#include "append.h"
#include "attend.h"
#include "turboquant/metal/params.h"

namespace tq::mlx_plugin {

// (streams, KV heads, n, head_dim) floats as (streams, n, n_embd) halves: clamped, NaN becomes 0.
mx::array exact_halves(const mx::array& rows, mx::Stream stream);

// `exact` with the call's rows in their slots.
mx::array keep_exact(const ExactCells& cells, const AppendCall& call, const mx::array& exact, const mx::array& rows,
                     mx::Stream stream);

// All rows that the call's queries may take: (streams * n_slots + streams * n_tokens, n_embd).
mx::array gather_exact(const ExactSide& side, mx::Stream stream);

// What attention reads of them.
struct ExactLists {
    std::vector<ExactEntry> entries;  // [stream][token][n_exact]
    std::vector<uint32_t> hidden;     // [stream][token][hidden_words]
};
ExactLists exact_lists(const ExactCells& cells, const AttendCall& call, int64_t n_tokens, int n_exact,
                       int hidden_words);

}  // namespace tq::mlx_plugin
