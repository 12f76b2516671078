// The graph node that stores new rows of keys or of values.
#pragma once

#include <optional>
#include <vector>

#include "arrays.h"
#include "layer_codec.h"

namespace tq::mlx_plugin {

// The rows of a call, of each stream: its rows [0, n) go to cells [cell, cell + n).
struct StreamRows {
    int64_t cell = 0;
    int64_t n = 0;
};

struct AppendCall {
    Side side = Side::kKey;
    std::vector<StreamRows> streams;
    int64_t n_blocks = 0;  // records that each stream has afterwards, not fewer than before
    // The caller vouches that whoever else holds `records` reads only cells before the new ones: then these are written
    // into the same memory even where MLX counts other users. Readers see no difference, since a record's other cells
    // keep their bits.
    bool in_place = false;
};

struct Appended {
    mx::array records;
    std::optional<mx::array> exact;
};

// records: (n_stream, n_blocks, block_bytes) uint8. rows: (n_stream, n_head_kv, n, head_dim), floats; those behind a
// stream's n are not read. exact: (n_stream, n_slots, n_embd) f16, given if and only if the preset has exact cells; the
// slot of a cell is exact_slot(). Throws std::invalid_argument naming a shape that does not fit.
Appended append(const LayerCodecPtr& codec, const AppendCall& call, const mx::array& records, const mx::array& rows,
                const std::optional<mx::array>& exact);

// Where a cell's row lies among the exact rows of its stream: sinks by their cell, others in a ring.
inline int64_t exact_slot(const ExactCells& exact, int64_t cell) {
    return cell < exact.n_sink ? cell : exact.n_sink + (cell - exact.n_sink) % exact.n_kept();
}

}  // namespace tq::mlx_plugin
