#include "turboquant/codec/row_codec.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <string>

#include "turboquant/codec/scale.h"

namespace tq {
namespace {

template <class T>
T load(const uint8_t* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

template <class T>
void store(uint8_t* p, const T& value) {
    std::memcpy(p, &value, sizeof value);
}

// The bits of one plane of a cell's 16 codes. Values have them in all 16 lanes of one unit. Keys have them in one lane, 4
// dims, of each of 4 units; units that share a vector share the lane.
template <Side side, int width>
struct PlaneOfCell {
    static constexpr uint32_t kOne = (1u << width) - 1, kMask = side == Side::kKey ? kOne * 0x01010101u : kOne;

    int units;        // of a key that share a lane
    int offset;       // bytes from the tile's begin to the first lane
    int shift;        // of the lowest bit in the lane
    int step;         // from one unit's lowest bit to the next one's
    int code_shift;   // of the lowest bit in the code

    PlaneOfCell(const CodePlane& plane, int cell_in_block) {
        const TilePosition first = tile_position(side, 0, cell_in_block);
        units = std::min(4, plane.units);
        offset = plane.byte_offset + 64 * plane.vector_of(first.unit) + 4 * first.lane;
        shift = 8 * first.byte + plane.bit_of(first.unit);
        step = plane.step;
        code_shift = plane.shift;
    }

    void insert(const uint8_t* codes, uint8_t* tile) const {
        if constexpr (side == Side::kKey) {
            for (int unit = 0; unit < 4; unit += units) {
                uint8_t* lane = tile + offset + 64 * (unit / units);
                uint32_t all = load<uint32_t>(lane);
                for (int u = 0; u < units; ++u) {
                    replace(all, load<uint32_t>(codes + 4 * (unit + u)), shift + step * u);
                }
                store(lane, all);
            }
        } else {
            auto lanes = load<std::array<uint32_t, 16>>(tile + offset);
            for (int i = 0; i < 16; ++i) replace(lanes[i], codes[i], shift);
            store(tile + offset, lanes);
        }
    }

    // Sets no other bits of the codes.
    void extract(const uint8_t* tile, uint8_t* codes) const {
        if constexpr (side == Side::kKey) {
            for (int unit = 0; unit < 4; ++unit) {
                const auto lane = load<uint32_t>(tile + offset + 64 * (unit / units));
                const uint32_t four = ((lane >> (shift + step * (unit % units))) & kMask) << code_shift;
                store(codes + 4 * unit, load<uint32_t>(codes + 4 * unit) | four);
            }
        } else {
            const auto lanes = load<std::array<uint32_t, 16>>(tile + offset);
            for (int i = 0; i < 16; ++i) {
                codes[i] |= static_cast<uint8_t>(((lanes[i] >> shift) & kMask) << code_shift);
            }
        }
    }

  private:
    void replace(uint32_t& lane, uint32_t codes, int at) const {
        lane = (lane & ~(kMask << at)) | ((codes >> code_shift) & kMask) << at;
    }
};

using PlanesByBits = std::array<CodePlanes, kMaxBits + 1>;
constexpr PlanesByBits planes_by_bits(bool trellis) {
    PlanesByBits planes;
    for (int bits = kMinBits; bits <= (trellis ? kMaxTrellisBits : kMaxBits); ++bits) planes[bits] = code_planes(bits, trellis);
    return planes;
}
constexpr PlanesByBits kPlanes = planes_by_bits(false), kTrellisPlanes = planes_by_bits(true);

// fn(PlaneOfCell) for every plane.
template <Side side, class Fn>
void for_planes(const CodePlanes& planes, int cell_in_block, Fn fn) {
    for (int p = 0; p < planes.count; ++p) {
        const CodePlane& plane = planes.plane[p];
        switch (plane.width) {
            case 1: fn(PlaneOfCell<side, 1>(plane, cell_in_block)); break;
            case 2: fn(PlaneOfCell<side, 2>(plane, cell_in_block)); break;
            case 4: fn(PlaneOfCell<side, 4>(plane, cell_in_block)); break;
            default: fn(PlaneOfCell<side, 8>(plane, cell_in_block));
        }
    }
}

template <class Fn>
void for_planes(const PackedLayout& layout, int cell_in_block, Fn fn) {
    const CodePlanes& planes = (layout.trellis ? kTrellisPlanes : kPlanes)[layout.bits];
    if (layout.side == Side::kKey) for_planes<Side::kKey>(planes, cell_in_block, fn);
    else for_planes<Side::kValue>(planes, cell_in_block, fn);
}

// Stores n encoded values of a cell; the first is dim `begin` of the row, at a group's border.
// The layout is a copy: bytes that are stored cannot be a part of it.
void insert_groups(const PackedLayout layout, int64_t begin, int n, const uint8_t* codes, const uint8_t* scales,
                   uint8_t* packed, int64_t stream, int64_t cell) {
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
    for_planes(layout, cell_in_block, [&](const auto& plane) {
        for (int step = 0; step < n_steps; ++step) plane.insert(codes + step * kStepDims, tiles[step]);
    });
}

}  // namespace

void insert_codes(const PackedLayout& layout, int cell_in_block, const uint8_t* codes, uint8_t* tile) {
    for_planes(layout, cell_in_block, [=](const auto& plane) { plane.insert(codes, tile); });
}

void extract_codes(const PackedLayout& layout, int cell_in_block, const uint8_t* tile, uint8_t* codes) {
    std::memset(codes, 0, kStepDims);
    for_planes(layout, cell_in_block, [=](const auto& plane) { plane.extract(tile, codes); });
}

Result<RowCodec> RowCodec::create(const PackedLayout& layout, int head_dim, Isa isa, std::span<const float> channel_scales) {
    Result<Rotation> plain = Rotation::create(head_dim);
    if (!plain.ok()) return plain.status();
    if (layout.n_embd % head_dim != 0) {
        return Status(Error::kInvalidArgument, "n_embd " + std::to_string(layout.n_embd) +
                                                   " is not a multiple of head_dim " + std::to_string(head_dim));
    }
    if (channel_scales.empty()) return RowCodec(layout, {std::move(plain.value())}, isa);
    if (channel_scales.size() != static_cast<size_t>(layout.n_embd)) {
        return Status(Error::kInvalidArgument,
                      std::to_string(channel_scales.size()) + " channel scales for n_embd " + std::to_string(layout.n_embd));
    }
    std::vector<Rotation> rotations;
    for (int64_t dim = 0; dim < layout.n_embd; dim += head_dim) {
        Result<Rotation> scaled = Rotation::create(head_dim, channel_scales.subspan(static_cast<size_t>(dim), static_cast<size_t>(head_dim)));
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

const Rotation& RowCodec::rotation(int head) const { return rotations_[rotations_.size() > 1 ? static_cast<size_t>(head) : 0]; }

void RowCodec::encode_slice(const float* row, uint8_t* packed, int64_t stream, int64_t cell, int slice) const {
    const int64_t begin = int64_t{slice} * slice_dims_;
    const int64_t end = std::min<int64_t>(begin + slice_dims_, layout_.n_embd);
    const int group_width = group_dims(layout_.side);
    if (layout_.has_center(cell)) choose_center(packed, stream, cell / kBlockCells, slice);
    // Small enough buffers: heads are rotated into a window that always starts at a group border.
    alignas(64) float window[kMaxGroupedValues];
    alignas(64) uint8_t codes[kMaxGroupedValues];
    uint8_t scales[kMaxGroups];
    int filled = 0;
    int64_t window_begin = begin;
    for (int64_t dim = begin; dim < end; dim += head_dim()) {
        kernels_->rotate_row(rotation(static_cast<int>(dim / head_dim())), row + dim, window + filled);
        if (layout_.has_center(cell)) subtract_center(packed, stream, cell, dim, head_dim(), window + filled);
        filled += head_dim();
        const bool last = dim + head_dim() == end;
        const int n = last ? filled : filled - filled % group_width;
        encode_window(window, n, codes, scales);
        insert_groups(layout_, window_begin, n, codes, scales, packed, stream, cell);
        window_begin += n;
        filled -= n;
        std::memmove(window, window + n, sizeof(float) * filled);
    }
}

void RowCodec::encode_window(const float* window, int n, uint8_t* codes, uint8_t* scales) const {
    const int width = group_dims(layout_.side);
    if (trellis_) return kernels_->encode_trellis(*trellis_, window, n, width, codes, scales);
    const bool unbiased = layout_.side == Side::kKey && layout_.bits == 2;
    kernels_->encode_groups(*book_, window, n, width, unbiased, codes, scales);
}

void RowCodec::decode_rotated(const uint8_t* packed, int64_t stream, int64_t cell, float* row) const {
    decode_steps(packed, stream, cell, 0, layout_.n_steps(), row);
}

// Steps [first, end) of a rotated row; first is at a group's border.
void RowCodec::decode_steps(const uint8_t* packed, int64_t stream, int64_t cell, int64_t first, int64_t end, float* values) const {
    const int64_t block = cell / kBlockCells;
    const int cell_in_block = static_cast<int>(cell % kBlockCells);
    uint8_t codes[kStepDims];
    int8_t levels[kStepDims];
    int state = 0;
    for (int64_t step = first; step < end; ++step) {
        float* out = values + (step - first) * kStepDims;
        const float scale = scale_from_code(
            packed[layout_.scale_offset(stream, layout_.group_of_step(step), block) + cell_in_block]);
        extract_codes(layout_, cell_in_block, packed + layout_.tile_offset(stream, step, block), codes);
        if (!layout_.continues_chain(step)) state = 0;
        if (trellis_) state = follow_trellis(*trellis_, state, codes, levels);
        else for (int i = 0; i < kStepDims; ++i) levels[i] = book_->centroid[codes[i]];
        for (int i = 0; i < kStepDims; ++i) out[i] = scale * static_cast<float>(levels[i]);
    }
    if (!layout_.has_center(cell)) return;
    for (int64_t step = first; step < end; ++step) {
        float center[kStepDims] = {};   // its negative
        subtract_center(packed, stream, cell, step * kStepDims, kStepDims, center);
        for (int i = 0; i < kStepDims; ++i) values[(step - first) * kStepDims + i] -= center[i];
    }
}

void RowCodec::decode(const uint8_t* packed, int64_t stream, int64_t cell, float* row) const {
    decode_rotated(packed, stream, cell, row);
    for (int head = 0; head * head_dim() < layout_.n_embd; ++head, row += head_dim()) kernels_->rotate_inverse(rotation(head), row, row);
}

// ---- centers of keys

// n dims of a rotated row that has a center, less it. `first` and n are multiples of 16.
void RowCodec::subtract_center(const uint8_t* packed, int64_t stream, int64_t cell, int64_t first, int n, float* values) const {
    const uint8_t* center = packed + layout_.center_offset(stream, cell / kBlockCells);
    const uint8_t* scales = center + layout_.center_codes_bytes();
    const Codebook& book = codebook(kCenterBits);
    for (int i = 0; i < n; i += kStepDims) {
        const int64_t dim = first + i;
        const float scale = scale_from_code(scales[dim / group_dims(Side::kKey)]);
        for (int d = 0; d < kStepDims; ++d) values[i + d] -= scale * static_cast<float>(book.centroid[center_code(center, dim + d)]);
    }
}

// Gives the slice of a block its center, if it has none yet.
void RowCodec::choose_center(uint8_t* packed, int64_t stream, int64_t block, int slice) const {
    const int64_t begin = int64_t{slice} * slice_dims_, end = std::min<int64_t>(begin + slice_dims_, layout_.n_embd);
    const uint8_t* scales = packed + layout_.center_offset(stream, block) + layout_.center_codes_bytes();
    if (scales[begin / group_dims(Side::kKey)] != 0) return;
    for (int64_t first = begin; first < end; first += kMaxHeadDim) {
        const int n = static_cast<int>(std::min<int64_t>(kMaxHeadDim, end - first));
        alignas(64) float center[kMaxHeadDim] = {};
        if (block == 0) estimate_from_first_cells(packed, stream, first, n, center);
        else mean_of_block_before(packed, stream, block, first, n, center);
        store_center(packed, stream, block, first, n, center);
    }
}

void RowCodec::mean_of_block_before(const uint8_t* packed, int64_t stream, int64_t block, int64_t first, int n, float* mean) const {
    const int n_live = add_block_before(packed, stream, block, first, n, mean);
    for (int i = 0; i < n; ++i) mean[i] /= static_cast<float>(std::max(n_live, 1));
}

// Of the center of block 0 all that is known is a key or two. One key is a half likely to be common: with an equal share of
// common and own energy, half of it leaves least. Where the key before is nearly the same, a bias outweighs all that differs
// between tokens (Qwen2.5), and it is taken whole. By groups: heads need not be alike.
void RowCodec::estimate_from_first_cells(const uint8_t* packed, int64_t stream, int64_t first, int n, float* center) const {
    if (!holds_something(packed, stream, 1, first, n)) return;
    float before[kMaxHeadDim];
    decode_steps(packed, stream, 0, first / kStepDims, (first + n) / kStepDims, before);
    decode_steps(packed, stream, 1, first / kStepDims, (first + n) / kStepDims, center);
    const int width = group_dims(Side::kKey);
    for (int begin = 0; begin < n; begin += width) {
        const int end = std::min(begin + width, n);
        double energy = 0, difference = 0;
        for (int i = begin; i < end; ++i) {
            energy += double{center[i]} * center[i];
            difference += (double{center[i]} - before[i]) * (double{center[i]} - before[i]);
        }
        if (4 * difference < energy) continue;
        for (int i = begin; i < end; ++i) center[i] *= 0.5f;
    }
}

// Of dims [first, first + n) of a cell, from a group's border on: whether some group has a scale.
bool RowCodec::holds_something(const uint8_t* packed, int64_t stream, int64_t cell, int64_t first, int n) const {
    const int width = group_dims(layout_.side);
    for (int64_t group = first / width; group * width < first + n; ++group) {
        if (packed[layout_.scale_offset(stream, group, cell / kBlockCells) + cell % kBlockCells] != 0) return true;
    }
    return false;
}

// Adds up what the cells of the block before hold, those that hold anything. Returns their number. Not cell 0: a text's first
// token is a sink for attention and its key unlike any other.
int RowCodec::add_block_before(const uint8_t* packed, int64_t stream, int64_t block, int64_t first, int n, float* sums) const {
    int n_live = 0;
    float values[kMaxHeadDim];
    for (int64_t cell = block == 1 ? 1 : (block - 1) * kBlockCells; cell < block * kBlockCells; ++cell) {
        if (!holds_something(packed, stream, cell, first, n)) continue;
        ++n_live;
        decode_steps(packed, stream, cell, first / kStepDims, (first + n) / kStepDims, values);
        for (int i = 0; i < n; ++i) sums[i] += values[i];
    }
    return n_live;
}

void RowCodec::store_center(uint8_t* packed, int64_t stream, int64_t block, int64_t first, int n, const float* values) const {
    const int width = group_dims(Side::kKey);
    uint8_t codes[kMaxHeadDim], scales[kMaxGroups];
    kernels_->encode_groups(codebook(kCenterBits), values, n, width, false, codes, scales);
    uint8_t* center = packed + layout_.center_offset(stream, block);
    for (int i = 0; i < n / 2; ++i) {
        const int low = i / 4 * 8 + i % 4;
        center[first / 2 + i] = static_cast<uint8_t>(codes[low] | codes[low + 4] << kCenterBits);
    }
    for (int group = 0; group * width < n; ++group) {   // 0 would say that none is chosen; 1 is next to nothing
        center[layout_.center_codes_bytes() + static_cast<size_t>(first / width + group)] = std::max<uint8_t>(scales[group], 1);
    }
}

void RowCodec::copy_center(uint8_t* packed, int64_t from_stream, int64_t from_block, int64_t to_stream, int64_t to_block) const {
    if (!layout_.centered) return;
    std::memmove(packed + layout_.center_offset(to_stream, to_block), packed + layout_.center_offset(from_stream, from_block),
                 layout_.center_row_bytes());
}

void RowCodec::reset_centers(uint8_t* packed, int64_t stream, int64_t first_block) const {
    if (!layout_.centered || first_block >= layout_.n_blocks()) return;
    std::memset(packed + layout_.center_offset(stream, first_block), 0,
                static_cast<size_t>(layout_.n_blocks() - first_block) * layout_.center_row_bytes());
}

// ---- whole rows

void RowCodec::copy(uint8_t* packed, int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell) const {
    const int64_t from_block = from_cell / kBlockCells, to_block = to_cell / kBlockCells;
    if (layout_.has_center(from_cell) != layout_.has_center(to_cell)) {
        return move_to_other_center(packed, from_stream, from_cell, to_stream, to_cell);
    }
    if (layout_.has_center(to_cell)) {
        const uint8_t* from = packed + layout_.center_offset(from_stream, from_block);
        const uint8_t* to = packed + layout_.center_offset(to_stream, to_block);
        const bool chosen = to[layout_.center_codes_bytes()] != 0;
        if (!chosen) copy_center(packed, from_stream, from_block, to_stream, to_block);
        else if (std::memcmp(from, to, layout_.center_row_bytes()) != 0) {
            return move_to_other_center(packed, from_stream, from_cell, to_stream, to_cell);
        }
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

void RowCodec::move_to_other_center(uint8_t* packed, int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell) const {
    constexpr int64_t piece_steps = kMaxHeadDim / kStepDims;
    for (int64_t first = 0; first < layout_.n_steps(); first += piece_steps) {
        const int64_t end = std::min(first + piece_steps, layout_.n_steps());
        const int n = static_cast<int>(end - first) * kStepDims;
        alignas(64) float values[kMaxHeadDim];
        uint8_t codes[kMaxHeadDim], scales[kMaxGroups];
        decode_steps(packed, from_stream, from_cell, first, end, values);
        if (layout_.has_center(to_cell)) subtract_center(packed, to_stream, to_cell, first * kStepDims, n, values);
        encode_window(values, n, codes, scales);
        insert_groups(layout_, first * kStepDims, n, codes, scales, packed, to_stream, to_cell);
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
