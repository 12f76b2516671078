// Where the bits of a block record lie for CPUs (and for Metal, which reads it as it is). All offsets are in bytes from
// the record's begin; see docs/codec.md for a worked example.
//
//   tile = 16 dims (a step) x 64 cells: 1024 codes in 128*bits bytes, the unit that SIMD kernels decode
//
// A record:  [group][step in group][tile], behind each group's tiles its scales of the 64 cells; behind all groups, of
// centered keys, the center: [n_embd codes of 4 bits; a scale for each group]. Of 8 codes of a center the first four
// are in the low bits of 4 bytes, the others in the high bits. So what a head needs of a block is one run of bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "turboquant/base/inline.h"
#include "turboquant/cpu/tile_offsets.h"
#include "turboquant/format/row_format.h"

namespace tq {

inline constexpr int kTileUnits = 16;  // a tile is 16 units of 64 codes: 16 lanes x 4 codes
inline constexpr int kTileValues = kStepDims * kBlockCells;

TQ_INLINE constexpr size_t tile_bytes(int bits) {
    return bytes_of_tile<size_t>(bits);
}
TQ_INLINE size_t group_offset(const RowFormat& format, int64_t group) {
    return offset_of_group(format.side, format.bits, static_cast<size_t>(group));
}
TQ_INLINE size_t tile_offset(const RowFormat& format, int64_t step) {
    return offset_of_tile(format.side, format.bits, static_cast<size_t>(step));
}
// Scales of the 64 cells.
TQ_INLINE size_t scale_offset(const RowFormat& format, int64_t group) {
    return offset_of_scales(format.side, format.bits, static_cast<size_t>(group),
                            static_cast<size_t>(format.n_steps()));
}
TQ_INLINE size_t center_offset(const RowFormat& format) {
    return format.rows_bytes();
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
