// This says where the bits of one packed K or V tensor lie. All offsets are in bytes; see docs/codec.md for a worked
// example.
//
//   tile   = 16 dims x 64 cells: 1024 codes in 128*bits bytes, the unit that SIMD kernels decode
//   step   = 16 consecutive dims of a row (a row holds n_embd = n_head_kv * head_dim values)
//   block  = 64 consecutive cells, starting at a multiple of 64
//   group  = the dims that share one scale per cell: 32 for keys, 64 for values, counted from the row's start
//
// Code plane:  [stream][group][block][step in group][tile], scale plane behind it: [stream][group][block][64 cells].
// Centered keys: a block's keys, but for cells 0 and 1, are coded as what they differ by from a center. Centers lie
// behind the scales, row by row: [stream][block][n_embd codes of 4 bits; a scale for each group, 0 as long as none is
// chosen]. Of 8 codes the first four are in the low bits of 4 bytes, the others in the high bits. Nothing here depends
// on head_dim: a cache can be allocated before head_dim is known.
#pragma once

#include <cstddef>
#include <cstdint>

#include "turboquant/base/inline.h"
#include "turboquant/base/status.h"
#include "turboquant/codec/preset.h"

namespace tq {

inline constexpr int kStepDims = 16;
inline constexpr int kBlockCells = 64;
inline constexpr int kTileUnits = 16;  // a tile is 16 units of 64 codes: 16 lanes x 4 codes
inline constexpr int kTileValues = kStepDims * kBlockCells;
inline constexpr size_t kPlaneAlignment = 64;
inline constexpr int kCenterBits = 4;
inline constexpr int kUncenteredCells = 2;  // the first of a stream: the center of block 0 comes from them

TQ_INLINE constexpr int group_steps_log2(Side side) {
    return side == Side::kKey ? 1 : 2;
}  // to shift instead of dividing
TQ_INLINE constexpr int group_steps(Side side) {
    return 1 << group_steps_log2(side);
}
TQ_INLINE constexpr int group_dims(Side side) {
    return kStepDims * group_steps(side);
}

struct PackedLayout {
    Side side = Side::kKey;
    int bits = 4;
    int64_t n_embd = 0;   // values a row, a multiple of 16
    int64_t n_cells = 0;  // cells a stream
    int64_t n_stream = 1;
    bool trellis = false;   // trellis codes: a value's level depends on the codes before it in its group
    bool centered = false;  // keys only

    TQ_INLINE bool has_center(int64_t cell) const { return centered && cell >= kUncenteredCells; }

    // Error: kInvalidArgument naming the argument.
    static Result<PackedLayout> create(Side side, int bits, int64_t n_embd, int64_t n_cells, int64_t n_stream,
                                       bool trellis = false, bool centered = false);
    // Makes the layout of one side of a preset.
    static Result<PackedLayout> create(const Preset& preset, Side side, int64_t n_embd, int64_t n_cells,
                                       int64_t n_stream) {
        return create(side, preset.bits(side), n_embd, n_cells, n_stream, preset.trellis(side), preset.centered(side));
    }

    TQ_INLINE int64_t n_steps() const { return n_embd / kStepDims; }
    TQ_INLINE int64_t n_groups() const { return (n_steps() + group_steps(side) - 1) >> group_steps_log2(side); }
    TQ_INLINE int64_t n_blocks() const { return (n_cells + kBlockCells - 1) / kBlockCells; }
    TQ_INLINE size_t tile_bytes() const { return size_t{128} * static_cast<size_t>(bits); }

    TQ_INLINE size_t code_stream_bytes() const { return static_cast<size_t>(n_steps() * n_blocks()) * tile_bytes(); }
    TQ_INLINE size_t scale_stream_bytes() const { return static_cast<size_t>(n_groups() * n_blocks()) * kBlockCells; }
    TQ_INLINE size_t code_plane_bytes() const { return static_cast<size_t>(n_stream) * code_stream_bytes(); }
    size_t bytes() const {
        const size_t rows = static_cast<size_t>(n_stream) * (code_stream_bytes() + scale_stream_bytes());
        return centered ? rows + center_bytes() : rows;
    }

    TQ_INLINE size_t center_codes_bytes() const { return static_cast<size_t>(n_embd) * kCenterBits / 8; }
    TQ_INLINE size_t center_row_bytes() const { return center_codes_bytes() + static_cast<size_t>(n_groups()); }
    size_t center_bytes() const {
        return (static_cast<size_t>(n_stream * n_blocks()) * center_row_bytes() + kPlaneAlignment - 1) /
               kPlaneAlignment * kPlaneAlignment;
    }
    TQ_INLINE size_t center_offset(int64_t stream, int64_t block) const {
        return code_plane_bytes() + static_cast<size_t>(n_stream) * scale_stream_bytes() +
               static_cast<size_t>(stream * n_blocks() + block) * center_row_bytes();
    }

    // Everything counted: codes, scales and the padding of the last block.
    double effective_bits() const {
        return 8.0 * static_cast<double>(bytes()) /
               (static_cast<double>(n_embd) * static_cast<double>(n_cells) * static_cast<double>(n_stream));
    }

    TQ_INLINE int group_of_step(int64_t step) const { return static_cast<int>(step >> group_steps_log2(side)); }
    // Says whether what precedes the step in its group is a part of its chain (of trellis codes).
    TQ_INLINE bool continues_chain(int64_t step) const { return step % group_steps(side) != 0; }
    // Steps that the group really has: the last one may be narrower.
    TQ_INLINE int64_t steps_in_group(int64_t group) const {
        return smaller<int64_t>(group_steps(side), n_steps() - group * group_steps(side));
    }

    TQ_INLINE size_t tile_offset(int64_t stream, int64_t step, int64_t block) const {
        const int64_t group = group_of_step(step);
        const int64_t first = group * group_steps(side);
        const int64_t tiles = first * n_blocks() + block * steps_in_group(group) + (step - first);
        return static_cast<size_t>(stream) * code_stream_bytes() + static_cast<size_t>(tiles) * tile_bytes();
    }
    // Scales of the 64 cells of a block.
    TQ_INLINE size_t scale_offset(int64_t stream, int64_t group, int64_t block) const {
        return code_plane_bytes() + static_cast<size_t>(stream) * scale_stream_bytes() +
               static_cast<size_t>(group * n_blocks() + block) * kBlockCells;
    }
};

// Effective bits per value of a preset for rows whose width is a multiple of 64, without block padding.
double effective_bits(const Preset& preset, Side side);
inline double effective_bits(const Preset& preset) {
    return (effective_bits(preset, Side::kKey) + effective_bits(preset, Side::kValue)) / 2;
}

// The planes that a code is cut into: 3 bits = a 2-bit plane and a 1-bit plane, low bits first in the widest plane. A
// plane's vectors (64 bytes) hold some consecutive units each, the first in the lowest bits.
struct CodePlane {
    int width;        // 8, 4, 2 or 1 bits
    int shift;        // position of these bits in the code
    int byte_offset;  // bytes to the first vector in the tile
    int units;        // units that a vector has
    int first_bit;    // the lowest of the first unit, in every byte of its vector
    int step;         // bits from there to the next unit's

    TQ_INLINE constexpr int vector_of(int unit) const { return unit / units; }
    TQ_INLINE constexpr int bit_of(int unit) const { return first_bit + step * (unit % units); }
};
struct CodePlanes {
    int count = 0;
    CodePlane plane[4]{};
};
// The path bits of trellis codes, the highest, are apart from the others. At 4 bits two units share a vector bit by
// bit: the second's inner bits are 0, 2 and 4 of each byte, the first's 1, 3 and 5, their path bits 6 and 7. What a
// level's number needs beside inner bits fits between them, so that kernels move neither unit's.
TQ_INLINE constexpr CodePlanes code_planes(int bits, bool trellis = false) {
    if (trellis && bits == 4)
        return {4, {{1, 0, 0, 2, 1, -1}, {1, 1, 0, 2, 3, -1}, {1, 2, 0, 2, 5, -1}, {1, 3, 0, 2, 6, 1}}};
    CodePlanes planes{};
    int shift = 0;
    constexpr int kWidths[] = {8, 4, 2, 1};
    for (int width : kWidths) {
        if (!(bits & width)) continue;
        planes.plane[planes.count++] = {width, shift, 128 * shift, 8 / width, 0, width};
        shift += width;
    }
    return planes;
}

// Says where a value sits in its tile: unit, 32-bit lane, and byte in the lane.
// Keys: lanes are cells, bytes are 4 consecutive dims. Values: lanes are dims, bytes are 4 consecutive cells.
struct TilePosition {
    int unit;
    int lane;
    int byte;
};
TQ_INLINE constexpr TilePosition tile_position(Side side, int dim, int cell) {
    if (side == Side::kKey) return {(cell / 16) * 4 + dim / 4, cell % 16, dim % 4};
    return {cell / 4, dim, cell % 4};
}

}  // namespace tq
