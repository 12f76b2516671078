// Packed tiles -> int8 centroids, over Ops (simd/ops_*.h): in registers, or into L1 where many rows share them.
#pragma once

#include <array>
#include <type_traits>
#include <utility>

#include "turboquant/base/inline.h"
#include "turboquant/cache/kv_cache.h"
#include "turboquant/codec/codebook.h"
#include "turboquant/codec/trellis.h"

namespace tq::attention_impl {

inline constexpr int kMaxSegments = 40;   // (head, group) intersections of one head
inline constexpr int kMaxSteps = kMaxHeadDim / kStepDims;
inline constexpr int kHalfTileUnits = kTileUnits / 2;
// What a tile has, as a kernel is made for it: int8 centroids, codes of so many bits, or trellis codes.
inline constexpr int kDecoded = 0;
inline constexpr int kTrellis = 16;       // added to the bits
constexpr bool is_trellis(int source) { return source > kTrellis; }
constexpr int bits_of(int source) { return is_trellis(source) ? source - kTrellis : source; }
constexpr int source_of(const PackedLayout& layout) { return layout.trellis ? kTrellis + layout.bits : layout.bits; }
constexpr int n_sources() { return kMaxBits - kMinBits + 1 + kMaxTrellisBits - kMinTrellisBits + 1; }   // packed ones
constexpr int source_at(int i) {
    constexpr int n_plain = kMaxBits - kMinBits + 1;
    return i < n_plain ? kMinBits + i : kTrellis + kMinTrellisBits + i - n_plain;
}
constexpr int index_of_source(int source) {
    return is_trellis(source) ? kMaxBits - kMinBits + 1 + bits_of(source) - kMinTrellisBits : source - kMinBits;
}
inline constexpr int kPrefetchBlocks = 2; // ahead of the block at hand

// fn(0), fn(1), ... with constants, so that arrays indexed by them live in registers.
template <int n, class Fn>
TQ_INLINE void unrolled(Fn fn) {
    [&]<int... i>(std::integer_sequence<int, i...>) TQ_LAMBDA {
        (fn(std::integral_constant<int, i>()), ...);
    }(std::make_integer_sequence<int, n>());
}

// The part of one head that shares a scale: whole steps. Heads and groups need not be aligned to each other.
struct Segment {
    int first_step;   // in the head
    int n_steps;
    int group;        // in the row
};

struct Segments {
    int count = 0;
    Segment at[kMaxSegments];
};

static TQ_INLINE Segments segments_of_head(const PackedLayout& layout, int head_dim, int head) {
    Segments segments;
    const int steps = head_dim / kStepDims, width = group_steps(layout.side);
    const int base = head * steps;
    for (int step = 0; step < steps;) {
        const int group = (base + step) / width;
        const int end = std::min(steps, (group + 1) * width - base);
        segments.at[segments.count++] = {step, end - step, group};
        step = end;
    }
    return segments;
}

// Bytes of which block b starts at `first + b * stride`.
struct Strided {
    const uint8_t* first;
    size_t stride;
    const uint8_t* at(int64_t block) const { return first + static_cast<size_t>(block) * stride; }
    size_t ahead() const { return kPrefetchBlocks * stride; }   // from what is read to what is prefetched meanwhile
};

// Into L2: fetching into L1 would hold one of its few miss buffers until memory answers. Past the last block this reads nothing.
static TQ_INLINE void prefetch(const uint8_t* line) { __builtin_prefetch(line, 0, 2); }

// Before a chain: path bits of 0.
alignas(64) inline constexpr uint8_t kNoPathBits[64] = {};

// Centroids (+ bias) of all codes, repeated: lookups ignore what is above a code's bits. 7-bit codes need all 128 bytes.
struct CentroidTable {
    alignas(64) uint8_t bytes[128];
};

static TQ_INLINE CentroidTable centroid_table(int source, int bias) {
    CentroidTable table{};
    if (source == kMaxBits) return table;
    const int8_t* levels = is_trellis(source) ? trellis_book(bits_of(source)).level.data() : codebook(source).centroid.data();
    const int mask = (is_trellis(source) ? 2 << bits_of(source) : 1 << source) - 1;
    for (int i = 0; i < 128; ++i) table.bytes[i] = static_cast<uint8_t>(levels[i & mask] + bias);
    return table;
}

// One head's keys or values of one stream.
struct HeadTiles {
    int source;
    int n_steps;
    bool continues[kMaxSteps];      // the tile before a step's in memory has what precedes it in its chain
    Segments segments;
    Strided tiles[kMaxSteps];
    Strided scales[kMaxSegments];   // E5M3 codes of 64 cells
    CentroidTable table;
};

static TQ_INLINE void prefetch_scales(const HeadTiles& head, int64_t block) {
    for (int s = 0; s < head.segments.count; ++s) prefetch(head.scales[s].at(block) + head.scales[s].ahead());
}

static TQ_INLINE HeadTiles head_tiles(const PackedLayout& layout, const uint8_t* data, int64_t stream, int head_dim, int head_kv, int bias) {
    HeadTiles head;
    head.source = source_of(layout);
    head.n_steps = head_dim / kStepDims;
    head.segments = segments_of_head(layout, head_dim, head_kv);
    for (int step = 0; step < head.n_steps; ++step) {
        const int64_t in_row = int64_t{head_kv} * head.n_steps + step;
        const int64_t tiles_in_block = layout.steps_in_group(layout.group_of_step(in_row));
        head.continues[step] = layout.continues_chain(in_row);
        head.tiles[step] = {data + layout.tile_offset(stream, in_row, 0), layout.tile_bytes() * tiles_in_block};
    }
    for (int s = 0; s < head.segments.count; ++s) {
        head.scales[s] = {data + layout.scale_offset(stream, head.segments.at[s].group, 0), kBlockCells};
    }
    head.table = centroid_table(head.source, bias);
    return head;
}

template <class Ops>
struct TileDecoder {
    using B = typename Ops::B;

    // Half tiles of 8 units are what kernels loop over: every plane's half is a whole number of vectors.

    // The bits of one plane moved to their place in the code; anything may be above and below them. Every line of the tile is
    // prefetched `ahead` bytes further when it is first used: evenly spread over the arithmetic, in as many streams as there are.
    template <int source, int unit, int plane_index>
    static TQ_INLINE B plane_bits(const uint8_t* tile, size_t ahead, int half) {
        constexpr CodePlane plane = code_planes(bits_of(source), is_trellis(source)).plane[plane_index];
        constexpr int per_vector = 8 / plane.width;
        const uint8_t* line = tile + plane.byte_offset + 64 * (plane.width * half + unit / per_vector);
        if constexpr (unit % per_vector == 0) prefetch(line + ahead);
        const B packed = Ops::load_bytes(line);
        return Ops::template shift_bits<plane.width * (unit % per_vector) - plane.shift>(packed);
    }

    // The low n bits of `low`, the others of `high`.
    template <int n>
    static TQ_INLINE B select_low(B low, B high) { return Ops::template select_bits<(1 << n) - 1>(low, high); }

    // What path bits decide in a half tile (codec/trellis.h): bit i of a byte belongs to unit i. Nothing where there are none.
    struct NoPath {};
    struct TrellisPath {
        B w, s;
    };
    template <int source>
    using Path = std::conditional_t<is_trellis(source), TrellisPath, NoPath>;

    template <int source, Side side>
    static TQ_INLINE Path<source> path_of(const uint8_t* tile, bool continues, size_t ahead, int half) {
        if constexpr (!is_trellis(source)) {
            return {};
        } else {
            constexpr CodePlanes planes = code_planes(bits_of(source), true);
            const uint8_t* line = tile + planes.plane[planes.count - 1].byte_offset + 64 * half;
            prefetch(line + ahead);
            const B u = Ops::load_bytes(line), before = Ops::load_bytes(continues ? line - 128 * bits_of(source) : kNoPathBits);
            if constexpr (side == Side::kValue) {
                const B u1 = Ops::template next_lanes<1>(u, before), u3 = Ops::template next_lanes<3>(u, before);
                return {Ops::xor_bytes(u, Ops::xor_bytes(u1, u3)), Ops::template next_lanes<2>(u, before)};
            } else {
                // Of the four units of 16 cells, the bits of a byte, each is preceded by the unit before; the first by the
                // last of the byte before.
                const B carried = Ops::next_bytes(u, before);
                const B u1 = Ops::template select_bits<0xee>(Ops::template shift_bits<-1>(u), Ops::template shift_bits<3>(carried));
                const B u2 = Ops::template select_bits<0xcc>(Ops::template shift_bits<-2>(u), Ops::template shift_bits<2>(carried));
                const B u3 = Ops::template select_bits<0x88>(Ops::template shift_bits<-3>(u), Ops::template shift_bits<1>(carried));
                return {Ops::xor_bytes(u, Ops::xor_bytes(u1, u3)), u2};
            }
        }
    }

    // 64 codes, with anything above their bits.
    template <int bits, int unit>
    static TQ_INLINE B codes(const uint8_t* tile, size_t ahead, int half) {
        constexpr CodePlanes planes = code_planes(bits);
        B codes = plane_bits<bits, unit, 0>(tile, ahead, half);
        if constexpr (planes.count > 1) codes = select_low<planes.plane[1].shift>(codes, plane_bits<bits, unit, 1>(tile, ahead, half));
        if constexpr (planes.count > 2) codes = select_low<planes.plane[2].shift>(codes, plane_bits<bits, unit, 2>(tile, ahead, half));
        return codes;
    }

    // 64 indices of trellis levels: the inner index, w, s, and anything above.
    template <int bits, int unit>
    static TQ_INLINE B trellis_indices(const uint8_t* tile, const TrellisPath& path, size_t ahead, int half) {
        constexpr int inner_bits = bits - 1;
        B index = codes<inner_bits, unit>(tile, ahead, half);
        index = select_low<inner_bits>(index, Ops::template shift_bits<unit - inner_bits>(path.w));
        return select_low<bits>(index, Ops::template shift_bits<unit - bits>(path.s));
    }

    // 64 centroids + bias (0 or 128) of unit 0..7 of a half tile.
    template <int source, int bias, int unit>
    static TQ_INLINE B centroids(const uint8_t* tile, const Path<source>& path, size_t ahead, int half, const CentroidTable& table) {
        if constexpr (source == kDecoded) {
            return Ops::load_bytes(tile + 64 * (kHalfTileUnits * half + unit));
        } else if constexpr (source == kMaxBits) {   // the code is 128 + value
            const B value = codes<source, unit>(tile, ahead, half);
            return bias == 128 ? value : Ops::xor_bytes(value, 0x80);
        } else if constexpr (is_trellis(source)) {
            constexpr int bits = bits_of(source);
            return Ops::template lookup_bytes<bits + 1>(table.bytes, trellis_indices<bits, unit>(tile, path, ahead, half));
        } else {
            return Ops::template lookup_bytes<source>(table.bytes, codes<source, unit>(tile, ahead, half));
        }
    }

    template <int source, Side side, int bias>
    static void decode_tile(const uint8_t* tile, bool continues, size_t ahead, const CentroidTable& table, uint8_t* out) {
        for (int half = 0; half < 2; ++half, out += 64 * kHalfTileUnits) {
            const Path<source> path = path_of<source, side>(tile, continues, ahead, half);
            unrolled<kHalfTileUnits>([&](auto unit) TQ_LAMBDA {
                Ops::store_bytes(static_cast<void*>(out + 64 * unit), centroids<source, bias, unit>(tile, path, ahead, half, table));
            });
        }
    }

    // Steps [first, end) of a block of the head as tiles of centroids; out: step 0's.
    template <Side side, int bias>
    static void decode_steps(const HeadTiles& head, int64_t block, int first, int end, uint8_t* out) {
        static constexpr auto table = []<int... i>(std::integer_sequence<int, i...>) {
            return std::array{decode_tile<source_at(i), side, bias>...};
        }(std::make_integer_sequence<int, n_sources()>());
        const auto decode = table[index_of_source(head.source)];
        for (int step = first; step < end; ++step) {
            decode(head.tiles[step].at(block), head.continues[step], head.tiles[step].ahead(), head.table, out + kTileValues * step);
        }
    }
};

}  // namespace tq::attention_impl
