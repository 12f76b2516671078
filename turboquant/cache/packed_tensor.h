// A packed K or V tensor of one layer, as attention reads it.
#pragma once

#include <cstdint>

#include "turboquant/cache/block_codec.h"
#include "turboquant/cache/blocks.h"

namespace tq {

struct PackedTensor {
    const BlockCodec* codec = nullptr;
    const uint8_t* records = nullptr;  // n_records records of codec->format().block_bytes(), at a multiple of
                                       // kRecordAlignment
    int64_t n_records = 0;
    int64_t n_cells = 0;   // cells that a stream has room for
    int64_t n_stream = 1;  // streams: sequences with cells of their own
    // [n_stream][blocks_of_cells(n_cells)]: the record of each block, which streams may share. Null: stream s has the
    // records from s * blocks_of_cells(n_cells) on.
    const int32_t* block_table = nullptr;

    TQ_INLINE ConstBlocks blocks(int64_t stream) const {
        const size_t stride = codec->format().block_bytes();
        const int64_t first = stream * blocks_of_cells(n_cells);
        if (block_table) return {records, stride, block_table + first};
        return {records + static_cast<size_t>(first) * stride, stride, nullptr};
    }
};

}  // namespace tq
