// RowCodec: copies of single rows. Whole blocks need none of this: they are copied as bytes.
#include <cstring>

#include "turboquant/cpu/codec/row_codec.h"

namespace tq {

bool RowCodec::have_same_center(const uint8_t* from, int64_t from_cell, const uint8_t* to, int64_t to_cell) const {
    const bool centered = format_.has_center(from_cell);
    if (centered != format_.has_center(to_cell)) return false;
    return !centered ||
           std::memcmp(from + center_offset(format_), to + center_offset(format_), format_.center_bytes()) == 0;
}

void RowCodec::copy(const ConstBlocks& from, int64_t from_cell, const Blocks& to, int64_t to_cell) const {
    if (format_.has_center(to_cell)) prepare_center_of_copy(from, from_cell, to, to_cell);
    const uint8_t* source = from.at(from_cell / kBlockCells);
    uint8_t* target = to.at(to_cell / kBlockCells);
    if (!have_same_center(source, from_cell, target, to_cell))
        return move_to_other_center(source, from_cell, target, to_cell);
    const int from_in_block = cell_in_block(from_cell), to_in_block = cell_in_block(to_cell);
    uint8_t codes[kStepDims];
    for (int64_t step = 0; step < format_.n_steps(); ++step) {
        extract_codes(format_, from_in_block, source + tile_offset(format_, step), codes);
        insert_codes(format_, to_in_block, codes, target + tile_offset(format_, step));
    }
    for (int64_t group = 0; group < format_.n_groups(); ++group)
        *scale_at(format_, target, group, to_in_block) = source[scale_offset(format_, group) + from_in_block];
}

void RowCodec::clear(const Blocks& blocks, int64_t cell) const {
    uint8_t* record = blocks.at(cell / kBlockCells);
    const uint8_t codes[kStepDims] = {};
    for (int64_t step = 0; step < format_.n_steps(); ++step)
        insert_codes(format_, cell_in_block(cell), codes, record + tile_offset(format_, step));
    for (int64_t group = 0; group < format_.n_groups(); ++group)
        *scale_at(format_, record, group, cell_in_block(cell)) = 0;
}

}  // namespace tq
