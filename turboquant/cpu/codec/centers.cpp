// RowCodec: the centers of keys (docs/decisions/0007).
#include <algorithm>
#include <bit>
#include <cstring>

#include "turboquant/cpu/codec/row_codec.h"
#include "turboquant/format/scale.h"

namespace tq {
namespace {

// The cell of a block whose store chooses the block's center.
int64_t first_centered_cell(int64_t block) {
    return block == 0 ? kUncenteredCells : block * kBlockCells;
}

uint64_t cell_bit(int64_t cell) {
    return uint64_t{1} << cell % kBlockCells;
}

// Calls fn(first, n) on pieces of a slice that a kernel takes at once, from one group border to another.
template <class Fn>
void for_pieces(int n, Fn fn) {
    for (int first = 0; first < n; first += kMaxHeadDim) fn(first, std::min(n - first, kMaxHeadDim));
}

// The levels of 16 dims: of each 8, the first four are in the low bits of 4 bytes, the others in the high bits.
void unpack_center(const Codebook& book, const uint8_t* codes, int8_t* levels) {
    static_assert(kCenterBits == 4);
    for (int half = 0; half < 2; ++half) {
        for (int i = 0; i < 4; ++i) {
            levels[8 * half + i] = book.centroid[codes[4 * half + i] & 15];
            levels[8 * half + 4 + i] = book.centroid[codes[4 * half + i] >> 4];
        }
    }
}

}  // namespace

// The slice of a block's center; zeros if none is chosen.
void RowCodec::read_center(const uint8_t* record, Slice slice, float* center) const {
    const uint8_t* codes = record + center_offset(format_);
    const uint8_t* scales = codes + format_.center_codes_bytes();
    const Codebook& book = codebook(kCenterBits);
    for (int i = 0; i < slice.n; i += kStepDims) {
        const int64_t dim = slice.first + i;
        const float scale = scale_from_code(scales[dim / group_dims(Side::kKey)]);
        int8_t levels[kStepDims];
        unpack_center(book, codes + dim / 2, levels);
        for (int d = 0; d < kStepDims; ++d) center[i + d] = scale * static_cast<float>(levels[d]);
    }
}

bool RowCodec::has_chosen_center(const uint8_t* record, Slice slice) const {
    const uint8_t* scales = record + center_offset(format_) + format_.center_codes_bytes();
    return scales[slice.first / group_dims(Side::kKey)] != 0;
}

// Cells of the block that hold something in this slice: some group of theirs has a scale. A cell that holds exactly its
// center looks like one that was never written, and is taken for such a one.
uint64_t RowCodec::live_cells(const uint8_t* record, Slice slice) const {
    const int width = group_dims(format_.side);
    uint8_t any[kBlockCells] = {};
    for (int64_t group = slice.first / width; group * width < slice.first + slice.n; ++group) {
        const uint8_t* scales = record + scale_offset(format_, group);
        for (int i = 0; i < kBlockCells; ++i) any[i] |= scales[i];
    }
    uint64_t live = 0;
    for (int i = 0; i < kBlockCells; ++i) live |= uint64_t{any[i] != 0} << i;
    return live;
}

uint64_t RowCodec::cells_in_use(const uint8_t* record) const {
    uint64_t in_use = 0;
    for (int slice = 0; slice < n_slices(); ++slice) in_use |= live_cells(record, slice_at(slice));
    return in_use;
}

// Before a store to the cell; rewritten: cells of its block that need not keep what they hold.
void RowCodec::prepare_center(const Blocks& blocks, int64_t cell, Slice slice, uint64_t rewritten) const {
    const int64_t block = cell / kBlockCells;
    uint8_t* record = blocks.at(block);
    if (cell != first_centered_cell(block) && has_chosen_center(record, slice)) return;
    alignas(64) float center[kMaxKeySlice] = {};
    if (block == 0)
        estimate_from_first_cells(record, slice, center);
    else
        mean_of_block_before(blocks, block, slice, center);
    set_center(record, block, slice, center, rewritten | cell_bit(cell));
}

// A key or two are all that is known of the center of block 0. One key is a half likely to be common: with an equal
// share of common and own energy, half of it leaves least. Where the key before is nearly the same, a bias outweighs
// all that differs between tokens (Qwen2.5), and it is taken whole. By groups: heads need not be alike.
void RowCodec::estimate_from_first_cells(const uint8_t* record, Slice slice, float* center) const {
    if ((live_cells(record, slice) >> 1 & 1) == 0) return;
    alignas(64) float before[kMaxKeySlice];
    decode_dims(record, 0, slice, before);
    decode_dims(record, 1, slice, center);
    const int width = group_dims(Side::kKey);
    for (int begin = 0; begin < slice.n; begin += width) {
        const int end = std::min(begin + width, slice.n);
        double energy = 0, difference = 0;
        for (int i = begin; i < end; ++i) {
            energy += double{center[i]} * center[i];
            difference += (double{center[i]} - before[i]) * (double{center[i]} - before[i]);
        }
        if (4 * difference < energy) continue;
        for (int i = begin; i < end; ++i) center[i] *= 0.5f;
    }
}

// The mean of a block's rows, rotated; mean: zeros.
void RowCodec::mean_of_rows(const float* rows, uint64_t cells, Slice slice, float* mean) const {
    alignas(64) float rotated[kMaxHeadDim];
    const auto n = static_cast<float>(std::max(std::popcount(cells), 1));
    for (; cells != 0; cells &= cells - 1) {
        const float* row = rows + std::countr_zero(cells) * format_.n_embd + slice.first;
        for (int first = 0; first < slice.n; first += head_dim()) {
            kernels_->rotate_row(rotation(static_cast<int>((slice.first + first) / head_dim())), row + first, rotated);
            for (int i = 0; i < head_dim(); ++i) mean[first + i] += rotated[i];
        }
    }
    for (int i = 0; i < slice.n; ++i) mean[i] /= n;
}

// write() gives the block another center. What its cells hold stays where it is, but for those about to be written (a
// bit each).
template <class Write>
void RowCodec::replace_center(uint8_t* record, int64_t block, Slice slice, uint64_t rewritten, Write write) const {
    alignas(64) float before[kMaxKeySlice], after[kMaxKeySlice];
    read_center(record, slice, before);
    write();
    read_center(record, slice, after);
    if (std::memcmp(before, after, sizeof(float) * slice.n) == 0) return;
    uint64_t kept = live_cells(record, slice) & ~rewritten;
    if (block == 0) kept = kept >> kUncenteredCells << kUncenteredCells;
    for (int i = 0; i < slice.n; ++i) before[i] -= after[i];
    move_differences(record, slice, before, kept);
}

void RowCodec::set_center(uint8_t* record, int64_t block, Slice slice, const float* values, uint64_t rewritten) const {
    replace_center(record, block, slice, rewritten, [&] { write_center(record, slice, values); });
}

void RowCodec::write_center(uint8_t* record, Slice slice, const float* values) const {
    const int width = group_dims(Side::kKey);
    uint8_t* center = record + center_offset(format_);
    uint8_t* center_scales = center + format_.center_codes_bytes() + slice.first / width;
    for_pieces(slice.n, [&](int first, int n) {
        uint8_t codes[kMaxHeadDim], scales[kMaxGroups];
        kernels_->encode_groups(codebook(kCenterBits), values + first, n, width, false, codes, scales);
        for (int i = 0; i < n / 2; ++i) {
            const int low = i / 4 * 8 + i % 4;
            center[(slice.first + first) / 2 + i] = static_cast<uint8_t>(codes[low] | codes[low + 4] << kCenterBits);
        }
        for (int group = 0; group * width < n; ++group) {  // 0 would say that none is chosen; 1 is next to nothing
            center_scales[first / width + group] = std::max<uint8_t>(scales[group], 1);
        }
    });
}

// Encodes cells (a bit each) again, whose differences from the center have all changed by the same.
void RowCodec::move_differences(uint8_t* record, Slice slice, const float* by, uint64_t cells) const {
    for (; cells != 0; cells &= cells - 1) {
        const int cell = std::countr_zero(cells);
        for_pieces(slice.n, [&](int first, int n) {
            alignas(64) float values[kMaxHeadDim];
            uint8_t codes[kMaxHeadDim], scales[kMaxGroups];
            decode_differences(record, cell, {slice.first + first, n}, values);
            for (int i = 0; i < n; ++i) values[i] += by[first + i];
            encode_window(values, n, codes, scales);
            store_groups(slice.first + first, n, codes, scales, record, cell);
        });
    }
}

void RowCodec::reset_center(uint8_t* record) const {
    std::memset(record + center_offset(format_), 0, format_.center_bytes());
}

// Before a copy to a cell that has a center. The center of the block that the row comes from is the one that it, and
// most likely its neighbours, were encoded around; cells 0 and 1, which have none, are like the other cells of block 0.
void RowCodec::prepare_center_of_copy(const ConstBlocks& from, int64_t from_cell, const Blocks& to,
                                      int64_t to_cell) const {
    const uint8_t* source = from.at(from_cell / kBlockCells);
    const int64_t to_block = to_cell / kBlockCells;
    uint8_t* target = to.at(to_block);
    if (source == target) return;
    for (int slice = 0; slice < n_slices(); ++slice) {
        const Slice dims = slice_at(slice);
        if (to_cell != first_centered_cell(to_block) && has_chosen_center(target, dims)) continue;
        if (!has_chosen_center(source, dims)) {
            prepare_center(to, to_cell, dims, 0);
            continue;
        }
        replace_center(target, to_block, dims, cell_bit(to_cell), [&] {
            const size_t codes = center_offset(format_) + static_cast<size_t>(dims.first) / 2;
            const size_t scales = center_offset(format_) + format_.center_codes_bytes() +
                                  static_cast<size_t>(dims.first / group_dims(Side::kKey));
            std::memcpy(target + codes, source + codes, static_cast<size_t>(dims.n) / 2);
            std::memcpy(target + scales, source + scales,
                        static_cast<size_t>((dims.n + group_dims(Side::kKey) - 1) / group_dims(Side::kKey)));
        });
    }
}

void RowCodec::move_to_other_center(const uint8_t* from, int64_t from_cell, uint8_t* to, int64_t to_cell) const {
    for (int slice = 0; slice < n_slices(); ++slice) {
        const Slice dims = slice_at(slice);
        for_pieces(dims.n, [&](int first, int n) {
            const Slice piece{dims.first + first, n};
            alignas(64) float values[kMaxHeadDim], center[kMaxHeadDim];
            uint8_t codes[kMaxHeadDim], scales[kMaxGroups];
            decode_dims(from, from_cell, piece, values);
            if (format_.has_center(to_cell)) {
                read_center(to, piece, center);
                for (int i = 0; i < n; ++i) values[i] -= center[i];
            }
            encode_window(values, n, codes, scales);
            store_groups(piece.first, n, codes, scales, to, cell_in_block(to_cell));
        });
    }
}

}  // namespace tq
