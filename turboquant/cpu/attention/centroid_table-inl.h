// This is how codes become centroids: which bits of which vectors make up the number of a code's centroid, and the
// tables that are looked up with them. All of it constants of a kernel, but for the tables' entries.
#pragma once

#include <cstdint>

#include "turboquant/base/inline.h"
#include "turboquant/cpu/record.h"
#include "turboquant/format/codebook.h"
#include "turboquant/format/trellis.h"

namespace tq::attention_impl {

inline constexpr int kHalfTileUnits = kTileUnits / 2;
// A kernel is made for what a tile has: int8 centroids, codes of so many bits, or trellis codes.
inline constexpr int kDecoded = 0;
inline constexpr int kTrellis = 16;  // added to the bits
TQ_INLINE constexpr bool is_trellis(int source) {
    return source > kTrellis;
}
TQ_INLINE constexpr int bits_of(int source) {
    return is_trellis(source) ? source - kTrellis : source;
}
TQ_INLINE int source_of(const RowFormat& format) {
    return format.trellis() ? kTrellis + format.bits : format.bits;
}
TQ_INLINE constexpr int n_sources() {
    return kMaxBits - kMinBits + 1 + kMaxTrellisBits - kMinTrellisBits + 1;
}  // packed ones
TQ_INLINE constexpr int source_at(int i) {
    constexpr int n_plain = kMaxBits - kMinBits + 1;
    return i < n_plain ? kMinBits + i : kTrellis + kMinTrellisBits + i - n_plain;
}
TQ_INLINE constexpr int index_of_source(int source) {
    return is_trellis(source) ? kMaxBits - kMinBits + 1 + bits_of(source) - kMinTrellisBits : source - kMinBits;
}

// Bits of a centroid's number. Of trellis codes (TrellisBook::level): inner index, w, s.
TQ_INLINE constexpr int index_bits(int source) {
    return bits_of(source) + (is_trellis(source) ? 1 : 0);
}
TQ_INLINE constexpr CodePlane path_plane(int source) {
    const CodePlanes planes = code_planes(bits_of(source), true);
    return planes.plane[planes.count - 1];
}

// 4-bit trellis codes: the planes of one unit share a vector.
TQ_INLINE constexpr bool shares_vectors(int source) {
    return is_trellis(source) && bits_of(source) == 4;
}

// ---- three ways to look a centroid up, by bits of its number

inline constexpr int kAnywhereBits = 6, kSplitBits = 4;
// Where a look-up takes six bits at once they may lie in any order. Parts stay where they are if they can, and units
// whose parts do so in different places have a table each.
template <class Ops>
TQ_INLINE constexpr bool anywhere(int source) {
    return Ops::kIndexAnywhere && index_bits(source) <= kAnywhereBits;
}
// Five bits where a look-up takes four: the fifth, wherever it is, selects one of two tables.
template <class Ops>
TQ_INLINE constexpr bool split(int source) {
    return index_bits(source) == kSplitBits + 1 && !anywhere<Ops>(source);
}
// Else all bits in their order, from bit 0 on.

// A part of the index: bits that lie in one vector.
struct IndexPart {
    int mask;    // its bits, the lowest moved to bit 0
    int number;  // place of its lowest bit in the centroid's number; the others follow
    int from;    // place of its lowest bit in the vector
    int to;      // place where the index wants it
};

struct IndexParts {
    int count = 0;
    IndexPart part[4]{};
    int selector = -1;     // the plane that has the fifth bit of split look-ups
    int selector_bit = 0;  // place of that bit in the plane's bytes

    TQ_INLINE constexpr int bits_before(int i) const {
        int bits = 0;
        for (int p = 0; p < i; ++p) bits |= part[p].mask << part[p].to;
        return bits;
    }
    // The number that an index stands for, but for the fifth bit of split look-ups.
    TQ_INLINE constexpr int number_of(int index) const {
        int number = 0;
        for (int p = 0; p < count; ++p) {
            for (int bit = 0, next = part[p].number; part[p].mask >> bit != 0; ++bit) {
                if (part[p].mask >> bit & 1) number |= (index >> (part[p].to + bit) & 1) << next++;
            }
        }
        return number;
    }
};

// w and s of trellis codes move together: s lies so far above w, and the units whose bits would overlap are in two
// vectors.
TQ_INLINE constexpr int pair_gap(int source) {
    return shares_vectors(source) ? 2 : 1;
}
TQ_INLINE constexpr int pair_vector(int source, int unit) {
    return unit / pair_gap(source) % 2;
}

// Its own place if that is free and the look-up sees it, else the lowest that is.
TQ_INLINE constexpr int free_place(int mask, int from, int taken, int seen_bits) {
    const auto fits = [=](int place) TQ_LAMBDA { return (mask << place & (taken | ~0u << seen_bits)) == 0; };
    if (fits(from)) return from;
    int place = 0;
    while (!fits(place)) ++place;
    return place;
}

// Finds the parts for unit 0..7 of a half tile: its planes, widest first, then for trellis codes the pair of w and s.
template <class Ops>
TQ_INLINE constexpr IndexParts index_parts(int source, int unit) {
    IndexParts parts{};
    const CodePlanes planes = code_planes(bits_of(source), is_trellis(source));
    int n_planes = planes.count - (is_trellis(source) ? 1 : 0);
    if (split<Ops>(source)) {
        parts.selector = --n_planes;
        parts.selector_bit = planes.plane[n_planes].bit_of(unit);
    }
    if (shares_vectors(source)) {  // every second bit
        parts.part[parts.count++] = {n_planes == 2 ? 0b101 : 0b10101, 0, planes.plane[0].bit_of(unit), 0};
    } else {
        for (int p = 0; p < n_planes; ++p) {
            const CodePlane& plane = planes.plane[p];
            parts.part[parts.count++] = {(1 << plane.width) - 1, plane.shift, plane.bit_of(unit), plane.shift};
        }
    }
    if (is_trellis(source)) {
        const int gap = pair_gap(source), number = bits_of(source) - 1;
        parts.part[parts.count++] = {1 | 1 << gap, number, unit - gap * pair_vector(source, unit), number};
    }
    for (int p = 0; p < parts.count; ++p) {
        IndexPart& part = parts.part[p];
        if (anywhere<Ops>(source)) part.to = free_place(part.mask, part.from, parts.bits_before(p), kAnywhereBits);
        if (split<Ops>(source)) part.to = free_place(part.mask, part.from, parts.bits_before(p), kSplitBits);
    }
    return parts;
}

// Units whose parts have the same places share the table of the first of them.
template <class Ops>
TQ_INLINE constexpr int table_of_unit(int source, int unit) {
    const auto same_places = [](const IndexParts& a, const IndexParts& b) TQ_LAMBDA {
        for (int p = 0; p < a.count; ++p) {
            if (a.part[p].to != b.part[p].to) return false;
        }
        return true;
    };
    int first = 0;
    while (!same_places(index_parts<Ops>(source, first), index_parts<Ops>(source, unit))) ++first;
    return first;
}

// Says how one part of an index is read.
struct PartRead {
    int offset;       // bytes to the vector that has it, in half tile 0
    int half_stride;  // bytes from there to that of half tile 1
    bool first_use;   // this half tile uses this vector for the first time
    int shift;        // bits to the right, from where it lies to where it is wanted
    int before;       // bits of the index that the parts before it fill
};

// Says what a kernel does for one unit of a half tile. The units' are values in a table, not template arguments: a loop
// over it costs the compiler one body, which it unrolls late, when everything else is done.
struct UnitReads {
    PartRead part[4];
    PartRead selector;  // the plane that has the fifth bit of split look-ups
    int selector_bit;
    int pair;   // vector of TrellisPath that it reads
    int table;  // unit whose table it shares
};

template <class Ops>
TQ_INLINE constexpr PartRead part_read(int source, int unit, int plane_index) {
    const CodePlane plane = code_planes(bits_of(source), is_trellis(source)).plane[plane_index];
    return {plane.byte_offset + 64 * plane.vector_of(unit), 64 * (kHalfTileUnits / plane.units),
            unit % plane.units == 0 && !(shares_vectors(source) && plane_index > 0), 0, 0};
}

template <class Ops>
TQ_INLINE constexpr UnitReads unit_reads(int source, int unit) {
    UnitReads reads{};
    const IndexParts parts = index_parts<Ops>(source, unit);
    for (int i = 0; i < parts.count; ++i) {
        reads.part[i] = part_read<Ops>(source, unit, i);
        reads.part[i].shift = parts.part[i].from - parts.part[i].to;
        reads.part[i].before = parts.bits_before(i);
    }
    if (parts.selector >= 0) reads.selector = part_read<Ops>(source, unit, parts.selector);
    reads.selector_bit = parts.selector_bit;
    reads.pair = is_trellis(source) ? pair_vector(source, unit) : 0;
    reads.table = table_of_unit<Ops>(source, unit);
    return reads;
}

template <class Ops, int source>
struct HalfTileReads {
    static constexpr int n_parts = index_parts<Ops>(source, 0).count;  // the same for all units
    struct Units {
        UnitReads unit[kHalfTileUnits];
    };
    static constexpr Units units = [] {
        Units all{};
        for (int unit = 0; unit < kHalfTileUnits; ++unit) all.unit[unit] = unit_reads<Ops>(source, unit);
        return all;
    }();
};

// Centroids + bias by index: one table of 128 bytes, repeated so that nothing above an index matters; or for each unit
// of a half tile, if it needs its own, one of 64 (anywhere) or two of 16 (split).
struct CentroidTable {
    alignas(64) uint8_t bytes[kHalfTileUnits][64];
};

template <class Ops>
CentroidTable make_centroid_table(int source, int bias) {
    const int8_t* levels =
        is_trellis(source) ? elements(trellis_book(bits_of(source)).level) : elements(codebook(source).centroid);
    CentroidTable table{};
    const CodePlanes planes = code_planes(bits_of(source), is_trellis(source));
    for (int unit = 0; unit < kHalfTileUnits; ++unit) {
        const IndexParts parts = index_parts<Ops>(source, unit);
        for (int i = 0; i < 64; ++i) {
            int number = (64 * unit + i) & ((1 << index_bits(source)) - 1);
            if (anywhere<Ops>(source)) number = parts.number_of(i);
            if (split<Ops>(source))
                number = parts.number_of(i % 16) | (i / 16 % 2) << planes.plane[parts.selector].shift;
            table.bytes[unit][i] = static_cast<uint8_t>(levels[number] + bias);
        }
    }
    return table;
}

// Tables of every source but 8 bits, which has no table.
template <class Ops>
struct CentroidTables {
    CentroidTable of[n_sources()];
};

template <class Ops>
CentroidTables<Ops> make_centroid_tables(int bias) {
    CentroidTables<Ops> tables{};
    for (int i = 0; i < n_sources(); ++i) {
        if (source_at(i) != kMaxBits) tables.of[i] = make_centroid_table<Ops>(source_at(i), bias);
    }
    return tables;
}

template <class Ops>
const CentroidTable& centroid_table(int source, int bias) {
    static const CentroidTables<Ops> plain = make_centroid_tables<Ops>(0),
                                     biased = make_centroid_tables<Ops>(Ops::kKeyBias);
    return (bias == 0 ? plain : biased).of[index_of_source(source)];
}

}  // namespace tq::attention_impl
