#include "turboquant/cpu/codec/plain_records.h"

#include <cstring>

#include "turboquant/cpu/codec/row_codec.h"

namespace tq {
namespace {

// Of 8 codes of a center the first four are in the low bits of 4 bytes, the others in the high bits.
void pack_center(const RowFormat& format, const PlainBlock& block, uint8_t* center) {
    for (size_t byte = 0; byte < format.center_codes_bytes(); ++byte) {
        const size_t low = byte / 4 * 8 + byte % 4;
        center[byte] =
            static_cast<uint8_t>((block.center_codes[low] & 15) | block.center_codes[low + 4] << kCenterBits);
    }
    std::memcpy(center + format.center_codes_bytes(), block.center_scales.data(), block.center_scales.size());
}

void unpack_center(const RowFormat& format, const uint8_t* center, PlainBlock& block) {
    for (size_t byte = 0; byte < format.center_codes_bytes(); ++byte) {
        const size_t low = byte / 4 * 8 + byte % 4;
        block.center_codes[low] = center[byte] & 15;
        block.center_codes[low + 4] = center[byte] >> kCenterBits;
    }
    std::memcpy(block.center_scales.data(), center + format.center_codes_bytes(), block.center_scales.size());
}

}  // namespace

void pack_record(const RowFormat& format, const PlainBlock& block, uint8_t* record) {
    std::memset(record, 0, format.block_bytes());
    for (int cell = 0; cell < kBlockCells; ++cell) {
        for (int64_t step = 0; step < format.n_steps(); ++step) {
            const uint8_t* codes = block.codes.data() + cell * format.n_embd + step * kStepDims;
            insert_codes(format, cell, codes, record + tile_offset(format, step));
        }
        for (int64_t group = 0; group < format.n_groups(); ++group)
            *scale_at(format, record, group, cell) =
                block.scales[static_cast<size_t>(cell * format.n_groups() + group)];
    }
    if (format.centered()) pack_center(format, block, record + center_offset(format));
}

PlainBlock unpack_record(const RowFormat& format, const uint8_t* record) {
    PlainBlock block(format);
    for (int cell = 0; cell < kBlockCells; ++cell) {
        for (int64_t step = 0; step < format.n_steps(); ++step) {
            uint8_t* codes = block.codes.data() + cell * format.n_embd + step * kStepDims;
            extract_codes(format, cell, record + tile_offset(format, step), codes);
        }
        for (int64_t group = 0; group < format.n_groups(); ++group) {
            block.scales[static_cast<size_t>(cell * format.n_groups() + group)] =
                record[scale_offset(format, group) + static_cast<size_t>(cell)];
        }
    }
    if (format.centered()) unpack_center(format, record + center_offset(format), block);
    return block;
}

}  // namespace tq
