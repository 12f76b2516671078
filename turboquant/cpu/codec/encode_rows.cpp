// RowCodec: rows into records.
#include <algorithm>
#include <cstring>

#include "turboquant/cpu/codec/cell_codes.h"
#include "turboquant/cpu/codec/row_codec.h"

namespace tq {

Result<RowCodec> RowCodec::create(const RowFormat& format, int head_dim, Isa isa,
                                  std::span<const float> channel_scales) {
    Result<std::vector<Rotation>> rotations = rotations_of_row(format, head_dim, channel_scales);
    if (!rotations.ok()) return rotations.status();
    return RowCodec(format, std::move(rotations.value()), isa);
}

RowCodec::RowCodec(const RowFormat& format, std::vector<Rotation> rotations, Isa isa)
    : BlockCodec(format, std::move(rotations)),
      kernels_(&codec_kernels(isa)),
      book_(format.trellis() ? nullptr : &codebook(format.bits)),
      trellis_(format.trellis() ? &trellis_book(format.bits) : nullptr) {}

void RowCodec::rotate_row(int head, const float* in, float* out) const {
    kernels_->rotate_row(rotation(head), in, out);
}

void RowCodec::rotate_query(int head, const float* in, float* out) const {
    kernels_->rotate_query(rotation(head), in, out);
}

void RowCodec::rotate_inverse(int head, const float* in, float* out) const {
    kernels_->rotate_inverse(rotation(head), in, out);
}

void RowCodec::encode_slice(const float* row, const Blocks& blocks, int64_t cell, int slice, uint64_t rewritten) const {
    const Slice dims = slice_at(slice);
    if (format_.has_center(cell)) prepare_center(blocks, cell, dims, rewritten);
    encode_around_center(row, blocks.at(cell / kBlockCells), cell, dims);
}

void RowCodec::encode_around_center(const float* row, uint8_t* record, int64_t cell, Slice slice) const {
    const int64_t begin = slice.first, end = slice.first + slice.n;
    const int group_width = group_dims(format_.side);
    const bool centered = format_.has_center(cell);
    // Small enough buffers: heads are rotated into a window that always starts at a group border.
    alignas(64) float window[kMaxGroupedValues], center[kMaxHeadDim];
    alignas(64) uint8_t codes[kMaxGroupedValues];
    uint8_t scales[kMaxGroups];
    int filled = 0;
    int64_t window_begin = begin;
    for (int64_t dim = begin; dim < end; dim += head_dim()) {
        float* rotated = window + filled;
        kernels_->rotate_row(rotation(static_cast<int>(dim / head_dim())), row + dim, rotated);
        if (centered) {
            read_center(record, {dim, head_dim()}, center);
            for (int i = 0; i < head_dim(); ++i) rotated[i] -= center[i];
        }
        filled += head_dim();
        const bool last = dim + head_dim() == end;
        const int n = last ? filled : filled - filled % group_width;
        encode_window(window, n, codes, scales);
        store_groups(window_begin, n, codes, scales, record, cell_in_block(cell));
        window_begin += n;
        filled -= n;
        std::memmove(window, window + n, sizeof(float) * filled);
    }
}

void RowCodec::encode_block(const float* rows, uint64_t cells, const Blocks& blocks, int64_t block) const {
    uint8_t* record = blocks.at(block);
    for (int slice = 0; slice < n_slices(); ++slice) {
        const Slice dims = slice_at(slice);
        if (format_.centered()) {
            const uint64_t centered = block == 0 ? cells >> kUncenteredCells << kUncenteredCells : cells;
            alignas(64) float mean[kMaxKeySlice] = {};
            mean_of_rows(rows, centered, dims, mean);
            set_center(record, block, dims, mean, cells);
        }
        for (int i = 0; i < kBlockCells; ++i) {
            if (cells >> i & 1) encode_around_center(rows + i * format_.n_embd, record, block * kBlockCells + i, dims);
        }
    }
}

void RowCodec::encode_window(const float* window, int n, uint8_t* codes, uint8_t* scales) const {
    const int width = group_dims(format_.side);
    if (trellis_) return kernels_->encode_trellis(*trellis_, window, n, width, codes, scales);
    const bool unbiased = format_.side == Side::kKey && format_.bits == 2;
    kernels_->encode_groups(*book_, window, n, width, unbiased, codes, scales);
}

// Stores n encoded values of a cell; the first is dim `begin` of the row, at a group's border.
void RowCodec::store_groups(int64_t begin, int n, const uint8_t* codes, const uint8_t* scales, uint8_t* record,
                            int cell_in_block) const {
    const RowFormat format = format_;  // a copy: bytes that are stored cannot be a part of it
    const int64_t first_step = begin / kStepDims, first_group = format.group_of_step(first_step);
    const int n_steps = n / kStepDims;
    uint8_t* tiles[kMaxGroupedValues / kStepDims];
    for (int step = 0, group = 0; step < n_steps; ++group) {
        *scale_at(format, record, first_group + group, cell_in_block) = scales[group];
        uint8_t* tile = record + tile_offset(format, first_step + step);
        for (const int end = std::min(step + group_steps(format.side), n_steps); step < end; ++step) {
            tiles[step] = tile;
            tile += tile_bytes(format.bits);
        }
    }
    cell_codes::for_planes(format, cell_in_block, [&](const auto& plane) {
        for (int step = 0; step < n_steps; ++step) plane.insert(codes + step * kStepDims, tiles[step]);
    });
}

void insert_codes(const RowFormat& format, int cell_in_block, const uint8_t* codes, uint8_t* tile) {
    cell_codes::for_planes(format, cell_in_block, [=](const auto& plane) { plane.insert(codes, tile); });
}

void extract_codes(const RowFormat& format, int cell_in_block, const uint8_t* tile, uint8_t* codes) {
    std::memset(codes, 0, kStepDims);
    cell_codes::for_planes(format, cell_in_block, [=](const auto& plane) { plane.extract(tile, codes); });
}

}  // namespace tq
