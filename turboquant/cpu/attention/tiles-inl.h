// Packed tiles -> int8 centroids, over Ops (cpu/simd/ops_*.h): in registers, or into L1 where many rows share them.
#pragma once

#include <type_traits>
#include <utility>

#include "turboquant/base/inline.h"
#include "turboquant/cache/blocks.h"
#include "turboquant/cpu/attention/centroid_table-inl.h"
#include "turboquant/cpu/record.h"
#include "turboquant/format/rotation.h"

namespace tq::attention_impl {

inline constexpr int kMaxSegments = 40;  // (head, group) intersections of one head
inline constexpr int kMaxSteps = kMaxHeadDim / kStepDims;
inline constexpr int kPrefetchBlocks = 2;  // ahead of the block at hand

// The part of one head that shares a scale: whole steps. Heads and groups need not be aligned to each other.
struct Segment {
    int first_step;  // index in the head
    int n_steps;
    int group;       // index in the row
    bool continues;  // the step before the first, another head's, is of the same group: of trellis codes, of the same
                     // chain
};

struct Segments {
    int count;
    Segment at[kMaxSegments];
};

static TQ_INLINE Segments segments_of_head(const RowFormat& format, int head_dim, int head) {
    Segments segments;
    segments.count = 0;
    const int steps = head_dim / kStepDims, width = group_steps(format.side);
    const int base = head * steps;
    for (int step = 0; step < steps;) {
        const int group = (base + step) / width;
        const int end = smaller(steps, (group + 1) * width - base);
        segments.at[segments.count++] = {step, end - step, group, format.continues_chain(base + step)};
        step = end;
    }
    return segments;
}

// A block that a kernel works on: its record, and how many bytes from a line of it to the line that is prefetched when
// it is read.
struct BlockRecord {
    const uint8_t* bytes;
    ptrdiff_t ahead;
};

// Prefetches into L2: fetching into L1 would hold one of its few miss buffers until memory answers. Past the last block
// this reads nothing.
static TQ_INLINE void prefetch(const uint8_t* line) {
    __builtin_prefetch(line, 0, 2);
}

// Before a chain: path bits of 0.
alignas(64) inline constexpr uint8_t kNoPathBits[64] = {};

// Where one head's keys or values lie in a record, in bytes from its begin.
struct HeadTiles {
    int source;
    int n_steps;
    Segments segments;
    uint32_t tiles[kMaxSteps];
    uint32_t scales[kMaxSegments];  // E5M3 codes of 64 cells
    const CentroidTable* table;
};

static TQ_INLINE void prefetch_scales(const HeadTiles& head, const BlockRecord& record) {
    for (int s = 0; s < head.segments.count; ++s) prefetch(record.bytes + head.scales[s] + record.ahead);
}

// bias: what is added to centroids, 0 or Ops::kKeyBias.
template <class Ops>
TQ_INLINE HeadTiles head_tiles(const RowFormat& format, int head_dim, int head_kv, int bias) {
    HeadTiles head;
    head.source = source_of(format);
    head.n_steps = head_dim / kStepDims;
    head.segments = segments_of_head(format, head_dim, head_kv);
    for (int step = 0; step < head.n_steps; ++step)
        head.tiles[step] = static_cast<uint32_t>(tile_offset(format, int64_t{head_kv} * head.n_steps + step));
    for (int s = 0; s < head.segments.count; ++s)
        head.scales[s] = static_cast<uint32_t>(scale_offset(format, head.segments.at[s].group));
    head.table = &centroid_table<Ops>(head.source, bias);
    return head;
}

template <class Ops>
struct TileDecoder {
    using B = typename Ops::B;

    // Half tiles of 8 units are what kernels loop over: every plane's half is a whole number of vectors.

    // The vector that has a part's bits. Every line of the tile is prefetched `ahead` bytes further when it is first
    // used: evenly spread over the arithmetic, in as many streams as there are.
    static TQ_INLINE B part_vector(const PartRead& part, const uint8_t* tile, ptrdiff_t ahead, int half) {
        const uint8_t* line = tile + part.offset + part.half_stride * half;
        if (part.first_use) prefetch(line + ahead);
        return Ops::load_bytes(line);
    }

    // ---- paths of trellis codes (format/trellis.h): w and s of 8 units at once

    struct NoPath {};
    struct TrellisPath {
        B pairs[2];  // see index_parts
    };
    template <int source>
    using Path = std::conditional_t<is_trellis(source), TrellisPath, NoPath>;

    // The path bits of a half tile: bit i of a byte belongs to unit i.
    template <int source>
    static TQ_INLINE B path_bits(const uint8_t* tile, int half) {
        constexpr CodePlane plane = path_plane(source);
        constexpr int vectors = kHalfTileUnits / plane.units;
        const uint8_t* line = tile + plane.byte_offset + 64 * vectors * half;
        B bits = Ops::shift_bits(Ops::load_bytes(line), plane.first_bit);
        TQ_UNROLL
        for (int i = 1; i < vectors; ++i) {
            const B next = Ops::shift_bits(Ops::load_bytes(line + 64 * i), plane.first_bit - plane.units * i);
            bits = Ops::select_bits((1 << plane.units * i) - 1, bits, next);
        }
        return bits;
    }

    // Reads the half tiles of a segment's steps one after another.
    template <int source, Side side>
    class PathReader {
      public:
        PathReader() = default;
        // tile: the segment's first.
        TQ_INLINE PathReader(const uint8_t* tile, const Segment& segment, int half) {
            if constexpr (is_trellis(source)) {
                before_ = segment.continues ? path_bits<source>(tile - 128 * bits_of(source), half)
                                            : Ops::load_bytes(kNoPathBits);
            }
        }

        TQ_INLINE Path<source> next(const uint8_t* tile, ptrdiff_t ahead, int half) {
            if constexpr (!is_trellis(source)) {
                return {};
            } else {
                constexpr CodePlane plane = path_plane(source);
                if constexpr (plane.units == kHalfTileUnits)
                    prefetch(tile + plane.byte_offset + 64 * half + ahead);  // no other part's line
                const B u = path_bits<source>(tile, half);
                const TrellisPath path = follow(u, before_);
                before_ = u;
                return path;
            }
        }

      private:
        static TQ_INLINE TrellisPath follow(B u, B before) {
            if constexpr (side == Side::kValue) {  // lanes are dims
                return pairs_of(
                    Ops::xor_bytes(u, Ops::template next_lanes<1>(u, before), Ops::template next_lanes<3>(u, before)),
                    Ops::template next_lanes<2>(u, before));
            } else {  // a lane's bytes are; before the first come those of the unit before, of the step before for
                      // units 0 and 4
                const B unit_before = Ops::select_bits(0xee, Ops::shift_bits(u, -1), Ops::shift_bits(before, 3));
                return pairs_of(Ops::xor_bytes(u, Ops::template next_bytes<1>(u, unit_before),
                                               Ops::template next_bytes<3>(u, unit_before)),
                                Ops::template next_bytes<2>(u, unit_before));
            }
        }

        static TQ_INLINE TrellisPath pairs_of(B w, B s) {
            constexpr int gap = pair_gap(source), mask = gap == 1 ? 0x55 : 0x33;
            return {{Ops::select_bits(mask, w, Ops::shift_bits(s, -gap)),
                     Ops::select_bits(mask, Ops::shift_bits(w, gap), s)}};
        }

        [[no_unique_address]] std::conditional_t<is_trellis(source), B, NoPath> before_;
    };

    // ---- centroids

    // One part of the indices, where it is wanted, with anything around it.
    template <int source>
    static TQ_INLINE B index_part(const UnitReads& unit, int i, const uint8_t* tile, const Path<source>& path,
                                  ptrdiff_t ahead, int half) {
        if constexpr (is_trellis(source)) {
            if (i == HalfTileReads<Ops, source>::n_parts - 1)
                return Ops::shift_bits(path.pairs[unit.pair], unit.part[i].shift);
        }
        return Ops::shift_bits(part_vector(unit.part[i], tile, ahead, half), unit.part[i].shift);
    }

    template <int source>
    static TQ_INLINE B indices(const UnitReads& unit, const uint8_t* tile, const Path<source>& path, ptrdiff_t ahead,
                               int half) {
        B index = index_part<source>(unit, 0, tile, path, ahead, half);
        TQ_UNROLL
        for (int i = 1; i < HalfTileReads<Ops, source>::n_parts; ++i) {
            index = Ops::select_bits(unit.part[i].before, index, index_part<source>(unit, i, tile, path, ahead, half));
        }
        return index;
    }

    // 64 centroids + bias (0 or 128) of unit 0..7 of a half tile: a constant once the loop around it is unrolled.
    template <int source, int bias>
    static TQ_INLINE B centroids(int unit, const uint8_t* tile, const Path<source>& path, ptrdiff_t ahead, int half,
                                 const CentroidTable* table) {
        if constexpr (source == kDecoded) {
            return Ops::load_bytes(tile + 64 * (kHalfTileUnits * half + unit));
        } else {
            const UnitReads& reads = HalfTileReads<Ops, source>::units.unit[unit];
            if constexpr (source == kMaxBits) {  // the code is 128 + value
                const B value = part_vector(reads.part[0], tile, ahead, half);
                return bias == 128 ? value : Ops::xor_bytes(value, 0x80);
            } else if constexpr (anywhere<Ops>(source)) {
                return Ops::template lookup_bytes<kAnywhereBits>(table->bytes[reads.table],
                                                                 indices<source>(reads, tile, path, ahead, half));
            } else if constexpr (split<Ops>(source)) {
                const B index = indices<source>(reads, tile, path, ahead, half),
                        selector = part_vector(reads.selector, tile, ahead, half);
                return Ops::lookup_split(table->bytes[reads.table], index, selector, reads.selector_bit);
            } else {
                return Ops::template lookup_bytes<index_bits(source)>(table->bytes[0],
                                                                      indices<source>(reads, tile, path, ahead, half));
            }
        }
    }

    template <int source, Side side, int bias>
    static void decode_tiles(const HeadTiles& head, const Segment& segment, const BlockRecord& record, uint8_t* out) {
        const uint32_t* tiles = head.tiles + segment.first_step;
        for (int half = 0; half < 2; ++half, out += 64 * kHalfTileUnits) {
            PathReader<source, side> reader(record.bytes + tiles[0], segment, half);
            for (int step = 0; step < segment.n_steps; ++step) {
                const uint8_t* tile = record.bytes + tiles[step];
                const Path<source> path = reader.next(tile, record.ahead, half);
                TQ_UNROLL
                for (int unit = 0; unit < kHalfTileUnits; ++unit) {
                    Ops::store_bytes(static_cast<void*>(out + kTileValues * step + 64 * unit),
                                     centroids<source, bias>(unit, tile, path, record.ahead, half, head.table));
                }
            }
        }
    }

    // A segment of a block as tiles of centroids; out: the segment's first.
    template <Side side, int bias>
    static void decode_segment(const HeadTiles& head, const Segment& segment, const BlockRecord& record, uint8_t* out) {
        decode_segment_of<side, bias>(std::make_integer_sequence<int, n_sources()>(), head, segment, record, out);
    }

  private:
    template <Side side, int bias, int... i>
    static TQ_INLINE void decode_segment_of(std::integer_sequence<int, i...>, const HeadTiles& head,
                                            const Segment& segment, const BlockRecord& record, uint8_t* out) {
        using Decode = void (*)(const HeadTiles&, const Segment&, const BlockRecord&, uint8_t*);
        static constexpr Decode kDecoders[] = {decode_tiles<source_at(i), side, bias>...};
        kDecoders[index_of_source(head.source)](head, segment, record, out);
    }
};

}  // namespace tq::attention_impl
