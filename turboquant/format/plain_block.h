// A block's rows as plain codes and scales, in the order of the paper: the meeting point of all engines' record orders,
// and what decoding means.
#pragma once

#include <cstdint>
#include <vector>

#include "turboquant/format/row_format.h"

namespace tq {

struct PlainBlock {
    explicit PlainBlock(const RowFormat& format)
        : codes(static_cast<size_t>(kBlockCells * format.n_embd)),
          scales(static_cast<size_t>(kBlockCells * format.n_groups())),
          center_codes(format.centered() ? static_cast<size_t>(format.n_embd) : 0),
          center_scales(format.centered() ? static_cast<size_t>(format.n_groups()) : 0) {}
    bool operator==(const PlainBlock&) const = default;

    std::vector<uint8_t> codes;   // [64 cells][n_embd]
    std::vector<uint8_t> scales;  // [64 cells][n_groups], as format/scale.h codes them
    // Of centered keys; scales of 0: no center is chosen.
    std::vector<uint8_t> center_codes;   // [n_embd], of kCenterBits
    std::vector<uint8_t> center_scales;  // [n_groups]
};

// The rotated row of a cell (its number in the block, and in the sequence): a value is its level times its group's
// scale, plus the center. row: n_embd floats. TurboQuant, arXiv 2504.19874, Algorithm 1, "DeQuant" without the rotation
// back.
void decode_plain(const RowFormat& format, const PlainBlock& block, int cell_in_block, int64_t cell, float* row);

}  // namespace tq
