#include "turboquant/codec/row_codec.h"

#include <cstring>
#include <numeric>
#include <string>

#include "turboquant/codec/scale.h"

namespace tq {
namespace {

// 32-bit lanes that hold a cell's 16 dims. Keys: 4 lanes of 4 dims each. Values: 16 lanes with one dim each.
constexpr int kLanesPerStep[] = {4, 16};

int lanes_per_step(Side side) { return kLanesPerStep[side == Side::kValue]; }

struct LaneBits {
    size_t byte_offset;  // of the 32-bit lane in the tile
    int shift;           // of the plane's lowest bit of the lane's first code
};

LaneBits locate(Side side, const CodePlane& plane, int cell_in_block, int lane_index) {
    const int dim = side == Side::kKey ? 4 * lane_index : lane_index;
    const TilePosition at = tile_position(side, dim, cell_in_block);
    const int units_per_vector = 8 / plane.width;
    const size_t offset = plane.byte_offset + 64u * (at.unit / units_per_vector) + 4u * at.lane;
    return {offset, 8 * at.byte + plane.width * (at.unit % units_per_vector)};
}

// Four codes side by side in a lane (keys), or one (values).
uint32_t lane_mask(Side side, int width) {
    const uint32_t one = (1u << width) - 1;
    return side == Side::kKey ? one * 0x01010101u : one;
}

uint32_t gather_lane(Side side, const CodePlane& plane, const uint8_t* codes, int lane_index) {
    uint32_t four = 0;
    if (side == Side::kKey) {
        std::memcpy(&four, codes + 4 * lane_index, 4);
    } else {
        four = codes[lane_index];
    }
    return (four >> plane.shift) & lane_mask(side, plane.width);
}

}  // namespace

void insert_codes(Side side, int bits, int cell_in_block, const uint8_t* codes, uint8_t* tile) {
    const CodePlanes planes = code_planes(bits);
    for (int p = 0; p < planes.count; ++p) {
        const CodePlane& plane = planes.plane[p];
        for (int i = 0; i < lanes_per_step(side); ++i) {
            const LaneBits at = locate(side, plane, cell_in_block, i);
            uint32_t lane;
            std::memcpy(&lane, tile + at.byte_offset, 4);
            lane &= ~(lane_mask(side, plane.width) << at.shift);
            lane |= gather_lane(side, plane, codes, i) << at.shift;
            std::memcpy(tile + at.byte_offset, &lane, 4);
        }
    }
}

void extract_codes(Side side, int bits, int cell_in_block, const uint8_t* tile, uint8_t* codes) {
    const CodePlanes planes = code_planes(bits);
    std::memset(codes, 0, kStepDims);
    for (int p = 0; p < planes.count; ++p) {
        const CodePlane& plane = planes.plane[p];
        for (int i = 0; i < lanes_per_step(side); ++i) {
            const LaneBits at = locate(side, plane, cell_in_block, i);
            uint32_t lane;
            std::memcpy(&lane, tile + at.byte_offset, 4);
            lane = ((lane >> at.shift) & lane_mask(side, plane.width)) << plane.shift;
            if (side == Side::kKey) {
                uint32_t four;
                std::memcpy(&four, codes + 4 * i, 4);
                four |= lane;
                std::memcpy(codes + 4 * i, &four, 4);
            } else {
                codes[i] = static_cast<uint8_t>(codes[i] | lane);
            }
        }
    }
}

Result<RowCodec> RowCodec::create(const PackedLayout& layout, int head_dim, Isa isa) {
    Result<Rotation> rotation = Rotation::create(head_dim);
    if (!rotation.ok()) return rotation.status();
    if (layout.n_embd % head_dim != 0) {
        return Status(Error::kInvalidArgument, "n_embd " + std::to_string(layout.n_embd) +
                                                   " is not a multiple of head_dim " + std::to_string(head_dim));
    }
    return RowCodec(layout, std::move(rotation.value()), isa);
}

RowCodec::RowCodec(const PackedLayout& layout, Rotation rotation, Isa isa)
    : layout_(layout),
      rotation_(std::move(rotation)),
      kernels_(&codec_kernels(isa)),
      book_(&codebook(layout.bits)),
      slice_dims_(std::lcm(rotation_.head_dim, group_dims(layout.side))) {
    if (slice_dims_ > layout.n_embd) slice_dims_ = static_cast<int>(layout.n_embd);
    n_slices_ = static_cast<int>((layout.n_embd + slice_dims_ - 1) / slice_dims_);
}

void RowCodec::encode_slice(const float* row, uint8_t* packed, int64_t stream, int64_t cell, int slice) const {
    const int64_t begin = int64_t{slice} * slice_dims_;
    const int64_t end = std::min<int64_t>(begin + slice_dims_, layout_.n_embd);
    const int64_t block = cell / kBlockCells;
    const int cell_in_block = static_cast<int>(cell % kBlockCells);
    const int group_width = group_dims(layout_.side);
    // Small enough buffers: heads are rotated into a window that always starts at a group border.
    alignas(64) float window[kMaxHeadDim + 64];
    alignas(64) uint8_t codes[64];
    int filled = 0;
    int64_t group_begin = begin;
    for (int64_t head = begin; head < end; head += head_dim()) {
        kernels_->sanitize(row + head, window + filled, head_dim());
        kernels_->rotate(rotation_, window + filled, window + filled);
        filled += head_dim();
        const bool last = head + head_dim() == end;
        int used = 0;
        while (filled - used >= group_width || (last && filled > used)) {
            const int n = std::min(group_width, filled - used);
            const bool unbiased = layout_.side == Side::kKey && layout_.bits == 2;
            const uint8_t scale = kernels_->encode_group(*book_, unbiased, window + used, n, codes);
            packed[layout_.scale_offset(stream, group_begin / group_width, block) + cell_in_block] = scale;
            for (int i = 0; i < n; i += kStepDims) {
                insert_codes(layout_.side, layout_.bits, cell_in_block, codes + i,
                             packed + layout_.tile_offset(stream, (group_begin + i) / kStepDims, block));
            }
            used += n;
            group_begin += n;
        }
        filled -= used;
        std::memmove(window, window + used, sizeof(float) * filled);
    }
}

void RowCodec::decode_rotated(const uint8_t* packed, int64_t stream, int64_t cell, float* row) const {
    const int64_t block = cell / kBlockCells;
    const int cell_in_block = static_cast<int>(cell % kBlockCells);
    uint8_t codes[kStepDims];
    for (int64_t step = 0; step < layout_.n_steps(); ++step) {
        const float scale = scale_from_code(
            packed[layout_.scale_offset(stream, layout_.group_of_step(step), block) + cell_in_block]);
        extract_codes(layout_.side, layout_.bits, cell_in_block, packed + layout_.tile_offset(stream, step, block), codes);
        for (int i = 0; i < kStepDims; ++i) row[step * kStepDims + i] = scale * static_cast<float>(book_->centroid[codes[i]]);
    }
}

void RowCodec::decode(const uint8_t* packed, int64_t stream, int64_t cell, float* row) const {
    decode_rotated(packed, stream, cell, row);
    for (int64_t head = 0; head < layout_.n_embd; head += head_dim()) kernels_->rotate_inverse(rotation_, row + head, row + head);
}

void RowCodec::copy(uint8_t* packed, int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell) const {
    const int64_t from_block = from_cell / kBlockCells, to_block = to_cell / kBlockCells;
    const int from = static_cast<int>(from_cell % kBlockCells), to = static_cast<int>(to_cell % kBlockCells);
    uint8_t codes[kStepDims];
    for (int64_t step = 0; step < layout_.n_steps(); ++step) {
        extract_codes(layout_.side, layout_.bits, from, packed + layout_.tile_offset(from_stream, step, from_block), codes);
        insert_codes(layout_.side, layout_.bits, to, codes, packed + layout_.tile_offset(to_stream, step, to_block));
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
        insert_codes(layout_.side, layout_.bits, cell_in_block, codes, packed + layout_.tile_offset(stream, step, block));
    }
    for (int64_t group = 0; group < layout_.n_groups(); ++group) {
        packed[layout_.scale_offset(stream, group, block) + cell_in_block] = 0;
    }
}

}  // namespace tq
