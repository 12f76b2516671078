#include "turboquant/codec/row_codec.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>

#include "turboquant/codec/cell_codes.h"
#include "turboquant/codec/scale.h"

namespace tq {

Result<RowCodec> RowCodec::create(const PackedLayout& layout, int head_dim, Isa isa,
                                  std::span<const float> channel_scales) {
    Result<Rotation> plain = Rotation::create(head_dim);
    if (!plain.ok()) return plain.status();
    if (layout.n_embd % head_dim != 0) {
        return Status(Error::kInvalidArgument, "n_embd " + std::to_string(layout.n_embd) +
                                                   " is not a multiple of head_dim " + std::to_string(head_dim));
    }
    if (channel_scales.empty()) return RowCodec(layout, {std::move(plain.value())}, isa);
    if (channel_scales.size() != static_cast<size_t>(layout.n_embd)) {
        return Status(Error::kInvalidArgument, std::to_string(channel_scales.size()) + " channel scales for n_embd " +
                                                   std::to_string(layout.n_embd));
    }
    std::vector<Rotation> rotations;
    for (int64_t dim = 0; dim < layout.n_embd; dim += head_dim) {
        Result<Rotation> scaled =
            Rotation::create(head_dim, channel_scales.subspan(static_cast<size_t>(dim), static_cast<size_t>(head_dim)));
        if (!scaled.ok()) return scaled.status();
        rotations.push_back(std::move(scaled.value()));
    }
    return RowCodec(layout, std::move(rotations), isa);
}

RowCodec::RowCodec(const PackedLayout& layout, std::vector<Rotation> rotations, Isa isa)
    : layout_(layout),
      rotations_(std::move(rotations)),
      kernels_(&codec_kernels(isa)),
      book_(layout.trellis ? nullptr : &codebook(layout.bits)),
      trellis_(layout.trellis ? &trellis_book(layout.bits) : nullptr),
      slice_dims_(std::lcm(head_dim(), group_dims(layout.side))) {
    if (slice_dims_ > layout.n_embd) slice_dims_ = static_cast<int>(layout.n_embd);
    n_slices_ = static_cast<int>((layout.n_embd + slice_dims_ - 1) / slice_dims_);
}

const Rotation& RowCodec::rotation(int head) const {
    return rotations_[rotations_.size() > 1 ? static_cast<size_t>(head) : 0];
}

RowCodec::Slice RowCodec::slice_at(int slice) const {
    const int64_t first = int64_t{slice} * slice_dims_;
    return {first, static_cast<int>(std::min<int64_t>(slice_dims_, layout_.n_embd - first))};
}

void RowCodec::encode_slice(const float* row, uint8_t* packed, int64_t stream, int64_t cell, int slice,
                            uint64_t rewritten) const {
    const Slice dims = slice_at(slice);
    if (layout_.has_center(cell)) prepare_center(packed, stream, cell, dims, rewritten);
    encode_around_center(row, packed, stream, cell, dims);
}

void RowCodec::encode_around_center(const float* row, uint8_t* packed, int64_t stream, int64_t cell,
                                    Slice slice) const {
    const int64_t begin = slice.first, end = slice.first + slice.n;
    const int group_width = group_dims(layout_.side);
    const bool centered = layout_.has_center(cell);
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
            read_center(packed, stream, cell / kBlockCells, {dim, head_dim()}, center);
            for (int i = 0; i < head_dim(); ++i) rotated[i] -= center[i];
        }
        filled += head_dim();
        const bool last = dim + head_dim() == end;
        const int n = last ? filled : filled - filled % group_width;
        encode_window(window, n, codes, scales);
        store_groups(window_begin, n, codes, scales, packed, stream, cell);
        window_begin += n;
        filled -= n;
        std::memmove(window, window + n, sizeof(float) * filled);
    }
}

void RowCodec::encode_block(const float* rows, uint64_t cells, uint8_t* packed, int64_t stream, int64_t block) const {
    for (int slice = 0; slice < n_slices_; ++slice) {
        const Slice dims = slice_at(slice);
        if (layout_.centered) {
            const uint64_t centered = block == 0 ? cells >> kUncenteredCells << kUncenteredCells : cells;
            alignas(64) float mean[kMaxKeySlice] = {};
            mean_of_rows(rows, centered, dims, mean);
            set_center(packed, stream, block, dims, mean, cells);
        }
        for (int i = 0; i < kBlockCells; ++i) {
            if (cells >> i & 1)
                encode_around_center(rows + i * layout_.n_embd, packed, stream, block * kBlockCells + i, dims);
        }
    }
}

void RowCodec::encode_window(const float* window, int n, uint8_t* codes, uint8_t* scales) const {
    const int width = group_dims(layout_.side);
    if (trellis_) return kernels_->encode_trellis(*trellis_, window, n, width, codes, scales);
    const bool unbiased = layout_.side == Side::kKey && layout_.bits == 2;
    kernels_->encode_groups(*book_, window, n, width, unbiased, codes, scales);
}

// Stores n encoded values of a cell; the first is dim `begin` of the row, at a group's border.
void RowCodec::store_groups(int64_t begin, int n, const uint8_t* codes, const uint8_t* scales, uint8_t* packed,
                            int64_t stream, int64_t cell) const {
    const PackedLayout layout = layout_;  // a copy: bytes that are stored cannot be a part of it
    const int64_t block = cell / kBlockCells;
    const int cell_in_block = static_cast<int>(cell % kBlockCells);
    const int64_t first_step = begin / kStepDims, first_group = layout.group_of_step(first_step);
    const int n_steps = n / kStepDims;
    uint8_t* tiles[kMaxGroupedValues / kStepDims];
    for (int step = 0, group = 0; step < n_steps; ++group) {
        packed[layout.scale_offset(stream, first_group + group, block) + cell_in_block] = scales[group];
        uint8_t* tile = packed + layout.tile_offset(stream, first_step + step, block);
        for (const int end = std::min(step + group_steps(layout.side), n_steps); step < end; ++step) {
            tiles[step] = tile;
            tile += layout.tile_bytes();
        }
    }
    cell_codes::for_planes(layout, cell_in_block, [&](const auto& plane) {
        for (int step = 0; step < n_steps; ++step) plane.insert(codes + step * kStepDims, tiles[step]);
    });
}

// Dims of a rotated row, of centered keys less their center; the first is at a group's border.
void RowCodec::decode_differences(const uint8_t* packed, int64_t stream, int64_t cell, Slice slice,
                                  float* values) const {
    const int64_t block = cell / kBlockCells;
    const int cell_in_block = static_cast<int>(cell % kBlockCells);
    uint8_t codes[kStepDims];
    int8_t levels[kStepDims];
    int state = 0;
    for (int i = 0; i < slice.n; i += kStepDims) {
        const int64_t step = (slice.first + i) / kStepDims;
        const float scale =
            scale_from_code(packed[layout_.scale_offset(stream, layout_.group_of_step(step), block) + cell_in_block]);
        extract_codes(layout_, cell_in_block, packed + layout_.tile_offset(stream, step, block), codes);
        if (!layout_.continues_chain(step)) state = 0;
        if (trellis_)
            state = follow_trellis(*trellis_, state, codes, levels);
        else
            for (int d = 0; d < kStepDims; ++d) levels[d] = book_->centroid[codes[d]];
        for (int d = 0; d < kStepDims; ++d) values[i + d] = scale * static_cast<float>(levels[d]);
    }
}

// The same with the center. At most kMaxKeySlice dims of centered keys.
void RowCodec::decode_dims(const uint8_t* packed, int64_t stream, int64_t cell, Slice slice, float* values) const {
    decode_differences(packed, stream, cell, slice, values);
    if (!layout_.has_center(cell)) return;
    alignas(64) float center[kMaxKeySlice];
    read_center(packed, stream, cell / kBlockCells, slice, center);
    for (int i = 0; i < slice.n; ++i) values[i] += center[i];
}

void RowCodec::decode_rotated(const uint8_t* packed, int64_t stream, int64_t cell, float* row) const {
    for (int slice = 0; slice < n_slices_; ++slice) {
        const Slice dims = slice_at(slice);
        decode_dims(packed, stream, cell, dims, row + dims.first);
    }
}

void RowCodec::decode(const uint8_t* packed, int64_t stream, int64_t cell, float* row) const {
    decode_rotated(packed, stream, cell, row);
    for (int head = 0; head * head_dim() < layout_.n_embd; ++head, row += head_dim())
        kernels_->rotate_inverse(rotation(head), row, row);
}

// ---- whole rows

void RowCodec::copy(uint8_t* packed, int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell) const {
    if (layout_.has_center(to_cell)) prepare_center_of_copy(packed, from_stream, from_cell, to_stream, to_cell);
    const int64_t from_block = from_cell / kBlockCells, to_block = to_cell / kBlockCells;
    const bool from_center = layout_.has_center(from_cell), to_center = layout_.has_center(to_cell);
    if (from_center != to_center || (to_center && std::memcmp(packed + layout_.center_offset(from_stream, from_block),
                                                              packed + layout_.center_offset(to_stream, to_block),
                                                              layout_.center_row_bytes()) != 0)) {
        return move_to_other_center(packed, from_stream, from_cell, to_stream, to_cell);
    }
    const int from = static_cast<int>(from_cell % kBlockCells), to = static_cast<int>(to_cell % kBlockCells);
    uint8_t codes[kStepDims];
    for (int64_t step = 0; step < layout_.n_steps(); ++step) {
        extract_codes(layout_, from, packed + layout_.tile_offset(from_stream, step, from_block), codes);
        insert_codes(layout_, to, codes, packed + layout_.tile_offset(to_stream, step, to_block));
    }
    for (int64_t group = 0; group < layout_.n_groups(); ++group) {
        packed[layout_.scale_offset(to_stream, group, to_block) + to] =
            packed[layout_.scale_offset(from_stream, group, from_block) + from];
    }
}

void RowCodec::clear(uint8_t* packed, int64_t stream, int64_t cell) const {
    const int64_t block = cell / kBlockCells;
    const int cell_in_block = static_cast<int>(cell % kBlockCells);
    const uint8_t codes[kStepDims] = {};
    for (int64_t step = 0; step < layout_.n_steps(); ++step) {
        insert_codes(layout_, cell_in_block, codes, packed + layout_.tile_offset(stream, step, block));
    }
    for (int64_t group = 0; group < layout_.n_groups(); ++group) {
        packed[layout_.scale_offset(stream, group, block) + cell_in_block] = 0;
    }
}

}  // namespace tq
