// The codes of one cell, or of all, in the planes of a tile (cpu/record.h).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "turboquant/cpu/record.h"

namespace tq::cell_codes {

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

// The bits of one plane of a cell's 16 codes. Values have them in all 16 lanes of one unit. Keys have them in one lane,
// 4 dims, of each of 4 units; units that share a vector share the lane.
template <Side side, int width>
struct PlaneOfCell {
    static constexpr uint32_t kOne = (1u << width) - 1, kMask = side == Side::kKey ? kOne * 0x01010101u : kOne;

    int units;       // units of a key that share a lane
    int offset;      // bytes from the tile's begin to the first lane
    int shift;       // place of the lowest bit in the lane
    int step;        // bits from one unit's lowest bit to the next one's
    int code_shift;  // place of the lowest bit in the code

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
    for (int bits = kMinBits; bits <= (trellis ? kMaxTrellisBits : kMaxBits); ++bits)
        planes[bits] = code_planes(bits, trellis);
    return planes;
}
inline constexpr PlanesByBits kPlanes = planes_by_bits(false), kTrellisPlanes = planes_by_bits(true);

inline const CodePlanes& planes_of(const RowFormat& format) {
    return (format.trellis() ? kTrellisPlanes : kPlanes)[format.bits];
}

// Calls fn(PlaneOfCell) on every plane.
template <Side side, class Fn>
void for_planes(const CodePlanes& planes, int cell_in_block, Fn fn) {
    for (int p = 0; p < planes.count; ++p) {
        const CodePlane& plane = planes.plane[p];
        switch (plane.width) {
            case 1:
                fn(PlaneOfCell<side, 1>(plane, cell_in_block));
                break;
            case 2:
                fn(PlaneOfCell<side, 2>(plane, cell_in_block));
                break;
            case 4:
                fn(PlaneOfCell<side, 4>(plane, cell_in_block));
                break;
            default:
                fn(PlaneOfCell<side, 8>(plane, cell_in_block));
        }
    }
}

template <class Fn>
void for_planes(const RowFormat& format, int cell_in_block, Fn fn) {
    const CodePlanes& planes = planes_of(format);
    if (format.side == Side::kKey)
        for_planes<Side::kKey>(planes, cell_in_block, fn);
    else
        for_planes<Side::kValue>(planes, cell_in_block, fn);
}

}  // namespace tq::cell_codes
