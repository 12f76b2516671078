// Packed codes -> centroids, in registers. A lane of a half SIMD group reads its share of half a tile (cpu/record.h): 8
// units of 4 codes in `bits` words. Of keys that are four units of each of two cells, of values eight units of four
// cells of one dim.
//
// Codes become floats without shifts or conversions, which are slow on Apple's GPUs: a field's bits, put into the mantissa
// of a power of two, are a float that is so much larger than it.
#pragma once

#include "turboquant/cpu/tile_offsets.h"
#include "turboquant/metal/code_levels.h"

namespace tq {

// (field << shift) - less, where the field is `width` bits of the word from bit `position` on. Everything but the word
// is known at compile time. The field's lowest bit is made to weigh 2^shift.
inline float field_of(uint word, int position, int width, int shift, float less) {
    const bool upper = position + width > 23;  // beyond the mantissa
    const int p = upper ? position - 16 : position;
    const uint bits = (upper ? uint(as_type<ushort2>(word).y) : word) & (((1u << width) - 1u) << p);
    const uint base = uint(127 + 23 + shift - p) << 23;
    const float sum = as_type<float>(bits | base), offset = as_type<float>(base);
    // With p = 0 the offset's last bit is 1 and it has no room for a half.
    return p == 0 ? (sum - offset) - less : sum - (offset + less);
}

// Of the four bytes of a word.
inline float4 fields_of(uint word, int bit, int width, int shift, float less) {
    return float4(field_of(word, bit, width, shift, less), field_of(word, 8 + bit, width, shift, less),
                  field_of(word, 16 + bit, width, shift, less), field_of(word, 24 + bit, width, shift, less));
}

// Where a lane's half tile is.
struct HalfTilePlace {
    device const uchar* tile;  // of a record
    bool continues;            // the step before belongs to the same group; its tile lies before this one
    uint half_of_tile;         // 0 or 1
    uint lane;                 // of 16

    uint word(int first_bit, int words, int i) const {
        return reinterpret_cast<device const uint*>(tile + 128 * first_bit)[16 * (int(half_of_tile) * words + i) +
                                                                           int(lane)];
    }
};
inline HalfTilePlace half_tile_place(device const uchar* tile, bool continues, uint half_of_tile, uint lane) {
    HalfTilePlace place;
    place.tile = tile;
    place.continues = continues;
    place.half_of_tile = half_of_tile;
    place.lane = lane;
    return place;
}

template <int codes, bool trellis>
struct HalfTileOf;
template <int codes>
using HalfTile = HalfTileOf<codes, is_trellis_of(codes)>;

template <int codes>
struct HalfTileOf<codes, false> {
    uint word[codes];  // of the widest plane first

    void load(Side, HalfTilePlace place) {
        int first = 0;  // word, and bits of a code, of the planes before
#pragma unroll
        for (int width = 8; width > 0; width /= 2) {
            if ((codes & width) == 0) continue;
#pragma unroll
            for (int i = 0; i < width; ++i) word[first + i] = place.word(first, width, i);
            first += width;
        }
    }

    // The four of a unit of the half tile, 0 to 7.
    float4 centroids(int unit) const {
        float4 t = float4(0);
        int first = 0;
#pragma unroll
        for (int width = 8; width > 0; width /= 2) {
            if ((codes & width) == 0) continue;
            const int units = 8 / width;  // that share a word
            const float less = first == 0 ? middle_of(codes) : 0.0f;
            const float4 field = fields_of(word[first + unit / units], unit % units * width, width, first, less);
            t = first == 0 ? field : t + field;
            first += width;
        }
        return Levels<codes>::of(t);
    }
};

// Trellis codes: a level's number is 4 * inner index + 2 * w + s, where w and s follow from the path bits of the value
// and the three before it, u ^ u1 ^ u3 and u2. In words of path bits byte k has its values' bits, that of unit i in bit
// i.
template <int codes>
struct HalfTileOf<codes, true> {
    static constexpr int bits() { return bits_of(codes); }
    uint word[bits_of(codes)];
    uint w, s;

    // Codes of 4 bits have path bits in bits 6 and 7 of words of two units.
    static uint path_bits(HalfTilePlace place) {
        if (bits() != 4) return place.word(bits() - 1, 1, 0);
        return (place.word(0, 4, 0) & 0xc0c0c0c0u) >> 6 | (place.word(0, 4, 1) & 0xc0c0c0c0u) >> 4 |
               (place.word(0, 4, 2) & 0xc0c0c0c0u) >> 2 | (place.word(0, 4, 3) & 0xc0c0c0c0u);
    }
    // Those of the lane, or of the last lanes of the step before, `back` dims before values'.
    static uint path_bits_before(HalfTilePlace place, uint back) {
        if (place.lane < back) {
            if (!place.continues) return 0;
            place.tile -= bytes_of_tile<int>(bits());
            place.lane += 16;
        }
        place.lane -= back;
        return path_bits(place);
    }

    void load(Side side, HalfTilePlace place) {
        const int words = bits() == 4 ? 4 : bits() - 1;
#pragma unroll
        for (int i = 0; i < words; ++i) word[i] = place.word(0, words, i);
        const uint own = path_bits(place);
        if (side == Side::kValue) {  // the dims before are other lanes'
            w = own ^ path_bits_before(place, 1) ^ path_bits_before(place, 3);
            s = path_bits_before(place, 2);
            return;
        }
        // The dims before a unit's first are the last bytes of the unit before, one bit lower; before the step's first
        // they are the step before's units 3 and 7.
        uint step_before = 0;
        if (place.continues) {
            place.tile -= bytes_of_tile<int>(bits());
            step_before = path_bits(place);
        }
        const uint before = (own >> 7 & 0xeeeeeeu) | (step_before >> 11 & 0x111111u);  // 3 bytes
        w = own ^ (own << 8 | before >> 16) ^ (own << 24 | before);
        s = own << 16 | before >> 8;
    }

    float4 centroids(int unit) const {
        float4 t = fields_of(s, unit, 1, 0, middle_of(codes)) + fields_of(w, unit, 1, 1, 0.0f);
        if (bits() == 4) {
#pragma unroll
            for (int i = 0; i < 3; ++i) t += fields_of(word[unit / 2], 2 * i + 1 - unit % 2, 1, 2 + i, 0.0f);
        } else {
            const int width = bits() - 1, units = 8 / width;
            t += fields_of(word[unit / units], unit % units * width, width, 2, 0.0f);
        }
        return Levels<codes>::of(t);
    }
};

}  // namespace tq
