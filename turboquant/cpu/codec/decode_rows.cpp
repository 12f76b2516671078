// RowCodec: rows out of records, one by one or a block at a time, tile by tile.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "turboquant/cpu/codec/cell_codes.h"
#include "turboquant/cpu/codec/row_codec.h"
#include "turboquant/format/scale.h"

namespace tq {

// A step's codes, cell by cell. Before those of a cell are the last four of the step before, on which trellis codes
// depend.
struct RowCodec::StepCodes {
    static constexpr int kBefore = 16;
    alignas(64) uint8_t cell[kBlockCells][kBefore + kStepDims] = {};

    uint8_t* of(int i) { return cell[i] + kBefore; }
};

namespace {

constexpr int kFewCells = 4;  // up to here taking them one by one is faster

using Lanes = std::array<uint32_t, 16>;  // codes of a unit: 64, one a byte

Lanes codes_of_unit(const CodePlanes& planes, const uint8_t* tile, int unit) {
    Lanes codes{};
    for (int p = 0; p < planes.count; ++p) {
        const CodePlane& plane = planes.plane[p];
        const auto lanes = cell_codes::load<Lanes>(tile + plane.byte_offset + 64 * plane.vector_of(unit));
        const int bit = plane.bit_of(unit);
        const uint32_t mask = ((1u << plane.width) - 1) * 0x01010101u;
        for (int i = 0; i < 16; ++i) codes[i] |= (lanes[i] >> bit & mask) << plane.shift;
    }
    return codes;
}

template <class StepCodes>
void unpack_tile(const RowFormat& format, const uint8_t* tile, StepCodes& codes) {
    const CodePlanes& planes = cell_codes::planes_of(format);
    for (int unit = 0; unit < kTileUnits; ++unit) {
        const Lanes lanes = codes_of_unit(planes, tile, unit);
        if (format.side == Side::kKey) {  // a lane is a cell's four dims
            for (int i = 0; i < 16; ++i) cell_codes::store(codes.of(unit / 4 * 16 + i) + unit % 4 * 4, lanes[i]);
        } else {  // a lane is a dim of four cells
            for (int c = 0; c < 4; ++c) {
                uint8_t* out = codes.of(4 * unit + c);
                for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>(lanes[i] >> 8 * c);
            }
        }
    }
}

// Does what follow_trellis does, to all values at once: each one's level depends on three path bits before it.
void trellis_levels(const TrellisBook& book, const uint8_t* codes, int8_t* levels) {
    const int path = book.bits - 1;
    uint8_t index[kStepDims];
    for (int i = 0; i < kStepDims; ++i) {
        const int w = codes[i] ^ codes[i - 1] ^ codes[i - 3], s = codes[i - 2];
        index[i] = static_cast<uint8_t>((codes[i] & ((1 << path) - 1)) | (w & 1 << path) | (s & 1 << path) << 1);
    }
    for (int i = 0; i < kStepDims; ++i) levels[i] = book.level[index[i]];
}

}  // namespace

// Dims of a rotated row, of centered keys less their center; the first is at a group's border.
void RowCodec::decode_differences(const uint8_t* record, int cell_in_block, Slice slice, float* values) const {
    uint8_t codes[kStepDims];
    int8_t levels[kStepDims];
    int state = 0;
    for (int i = 0; i < slice.n; i += kStepDims) {
        const int64_t step = (slice.first + i) / kStepDims;
        const float scale = scale_from_code(record[scale_offset(format_, format_.group_of_step(step)) + cell_in_block]);
        extract_codes(format_, cell_in_block, record + tile_offset(format_, step), codes);
        if (!format_.continues_chain(step)) state = 0;
        if (trellis_)
            state = follow_trellis(*trellis_, state, codes, levels);
        else
            for (int d = 0; d < kStepDims; ++d) levels[d] = book_->centroid[codes[d]];
        for (int d = 0; d < kStepDims; ++d) values[i + d] = scale * static_cast<float>(levels[d]);
    }
}

// The same with the center. At most kMaxKeySlice dims of centered keys.
void RowCodec::decode_dims(const uint8_t* record, int64_t cell, Slice slice, float* values) const {
    decode_differences(record, cell_in_block(cell), slice, values);
    if (!format_.has_center(cell)) return;
    alignas(64) float center[kMaxKeySlice];
    read_center(record, slice, center);
    for (int i = 0; i < slice.n; ++i) values[i] += center[i];
}

void RowCodec::decode_rotated(const ConstBlocks& blocks, int64_t cell, float* row) const {
    for (int slice = 0; slice < n_slices(); ++slice) {
        const Slice dims = slice_at(slice);
        decode_dims(blocks.at(cell / kBlockCells), cell, dims, row + dims.first);
    }
}

void RowCodec::decode(const ConstBlocks& blocks, int64_t cell, float* row) const {
    decode_rotated(blocks, cell, row);
    for (int head = 0; head * head_dim() < format_.n_embd; ++head, row += head_dim())
        kernels_->rotate_inverse(rotation(head), row, row);
}

// A step of cells [first_cell, first_cell + n), still rotated: 16 values each, at `stride` from one cell to the next.
// codes: those of the step before, if it belongs to the same group.
void RowCodec::decode_step(const uint8_t* record, int64_t block, int64_t step, int first_cell, int n, StepCodes& codes,
                           float* values, int64_t stride) const {
    for (int i = first_cell; i < first_cell + n; ++i) {
        constexpr int kLast = 4;
        if (format_.continues_chain(step))
            std::memcpy(codes.of(i) - kLast, codes.of(i) + kStepDims - kLast, kLast);
        else
            std::memset(codes.of(i) - kLast, 0, kLast);
    }
    unpack_tile(format_, record + tile_offset(format_, step), codes);
    const uint8_t* scales = record + scale_offset(format_, format_.group_of_step(step));
    float center[kStepDims] = {};
    if (format_.centered()) read_center(record, {step * kStepDims, kStepDims}, center);
    for (int i = first_cell; i < first_cell + n; ++i, values += stride) {
        int8_t levels[kStepDims];
        if (trellis_)
            trellis_levels(*trellis_, codes.of(i), levels);
        else
            for (int d = 0; d < kStepDims; ++d) levels[d] = book_->centroid[codes.of(i)[d]];
        const float scale = scale_from_code(scales[i]);
        for (int d = 0; d < kStepDims; ++d) values[d] = scale * static_cast<float>(levels[d]);
        if (!format_.has_center(block * kBlockCells + i)) continue;
        for (int d = 0; d < kStepDims; ++d) values[d] += center[d];
    }
}

void RowCodec::decode_block(const ConstBlocks& blocks, int64_t block, int first_cell, int n, float* rows) const {
    if (n <= kFewCells) {
        for (int i = 0; i < n; ++i) decode(blocks, block * kBlockCells + first_cell + i, rows + i * format_.n_embd);
        return;
    }
    const uint8_t* record = blocks.at(block);
    StepCodes codes;
    for (int64_t dim = 0; dim < format_.n_embd; dim += head_dim()) {
        for (int64_t first = dim; first < dim + head_dim(); first += kStepDims)
            decode_step(record, block, first / kStepDims, first_cell, n, codes, rows + first, format_.n_embd);
        const Rotation& of_head = rotation(static_cast<int>(dim / head_dim()));
        for (int i = 0; i < n; ++i) {
            float* head = rows + i * format_.n_embd + dim;
            kernels_->rotate_inverse(of_head, head, head);
        }
    }
}

// The mean of the cells of the block before that hold anything. Not of cell 0: a text's first token is a sink for
// attention and its key unlike any other.
void RowCodec::mean_of_block_before(const ConstBlocks& blocks, int64_t block, Slice slice, float* mean) const {
    const uint8_t* record = blocks.at(block - 1);
    uint64_t live = live_cells(record, slice);
    if (block == 1) live &= ~uint64_t{1};
    if (live == 0) return;
    const int begin = std::countr_zero(live), end = static_cast<int>(kBlockCells) - std::countl_zero(live);
    StepCodes codes;
    alignas(64) float values[kBlockCells][kStepDims];
    for (int first = 0; first < slice.n; first += kStepDims) {
        decode_step(record, block - 1, (slice.first + first) / kStepDims, begin, end - begin, codes, values[begin],
                    kStepDims);
        for (int i = begin; i < end; ++i) {
            if ((live >> i & 1) == 0) continue;
            for (int d = 0; d < kStepDims; ++d) mean[first + d] += values[i][d];
        }
    }
    for (int i = 0; i < slice.n; ++i) mean[i] /= static_cast<float>(std::popcount(live));
}

}  // namespace tq
