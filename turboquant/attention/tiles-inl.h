// Packed tiles -> int8 centroids, over Ops (simd/ops_*.h): in registers, or into L1 where many rows share them.
#pragma once

#include <utility>

#include "turboquant/base/inline.h"
#include "turboquant/cache/kv_cache.h"
#include "turboquant/codec/codebook.h"

namespace tq::attention_impl {

inline constexpr int kMaxSegments = 40;   // (head, group) intersections of one head
inline constexpr int kMaxSteps = kMaxHeadDim / kStepDims;
inline constexpr int kHalfTileUnits = kTileUnits / 2;
inline constexpr int kDecoded = 0;        // in place of bits: a tile of int8 centroids
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

// Centroids (+ bias) of all codes, repeated: lookups ignore what is above a code's bits. 7-bit codes need all 128 bytes.
struct CentroidTable {
    alignas(64) uint8_t bytes[128];
};

static TQ_INLINE CentroidTable centroid_table(int bits, int bias) {
    CentroidTable table{};
    if (bits == kMaxBits) return table;
    const Codebook& book = codebook(bits);
    const int mask = (1 << bits) - 1;
    for (int i = 0; i < 128; ++i) table.bytes[i] = static_cast<uint8_t>(book.centroid[i & mask] + bias);
    return table;
}

// One head's keys or values of one stream.
struct HeadTiles {
    int bits;
    int n_steps;
    Segments segments;
    Strided tiles[kMaxSteps];
    Strided scales[kMaxSegments];   // E5M3 codes of 64 cells
    CentroidTable table;
};

static TQ_INLINE void prefetch_scales(const HeadTiles& head, int64_t block) {
    for (int s = 0; s < head.segments.count; ++s) prefetch(head.scales[s].at(block) + head.scales[s].ahead());
}

static TQ_INLINE HeadTiles head_tiles(const PackedTensor& tensor, int64_t stream, int head_dim, int head_kv, int bias) {
    const PackedLayout& layout = tensor.codec->layout();
    HeadTiles head;
    head.bits = layout.bits;
    head.n_steps = head_dim / kStepDims;
    head.segments = segments_of_head(layout, head_dim, head_kv);
    for (int step = 0; step < head.n_steps; ++step) {
        const int64_t in_row = int64_t{head_kv} * head.n_steps + step;
        const int64_t tiles_in_block = layout.steps_in_group(layout.group_of_step(in_row));
        head.tiles[step] = {tensor.data + layout.tile_offset(stream, in_row, 0), layout.tile_bytes() * tiles_in_block};
    }
    for (int s = 0; s < head.segments.count; ++s) {
        head.scales[s] = {tensor.data + layout.scale_offset(stream, head.segments.at[s].group, 0), kBlockCells};
    }
    head.table = centroid_table(layout.bits, bias);
    return head;
}

template <class Ops>
struct TileDecoder {
    using B = typename Ops::B;

    // Half tiles of 8 units are what kernels loop over: every plane's half is a whole number of vectors.

    // The bits of one plane moved to their place in the code; anything may be above and below them. Every line of the tile is
    // prefetched `ahead` bytes further when it is first used: evenly spread over the arithmetic, in as many streams as there are.
    template <int bits, int unit, int plane_index>
    static TQ_INLINE B plane_bits(const uint8_t* tile, size_t ahead, int half) {
        constexpr CodePlane plane = code_planes(bits).plane[plane_index];
        constexpr int per_vector = 8 / plane.width;
        const uint8_t* line = tile + plane.byte_offset + 64 * (plane.width * half + unit / per_vector);
        if constexpr (unit % per_vector == 0) prefetch(line + ahead);
        const B packed = Ops::load_bytes(line);
        return Ops::template shift_bits<plane.width * (unit % per_vector) - plane.shift>(packed);
    }

    // 64 codes, with anything above their bits.
    template <int bits, int unit>
    static TQ_INLINE B codes(const uint8_t* tile, size_t ahead, int half) {
        constexpr CodePlanes planes = code_planes(bits);
        B codes = plane_bits<bits, unit, 0>(tile, ahead, half);
        if constexpr (planes.count > 1) codes = Ops::template select_low<planes.plane[1].shift>(codes, plane_bits<bits, unit, 1>(tile, ahead, half));
        if constexpr (planes.count > 2) codes = Ops::template select_low<planes.plane[2].shift>(codes, plane_bits<bits, unit, 2>(tile, ahead, half));
        return codes;
    }

    // 64 centroids + bias (0 or 128) of unit 0..7 of a half tile.
    template <int bits, int bias, int unit>
    static TQ_INLINE B centroids(const uint8_t* tile, size_t ahead, int half, const CentroidTable& table) {
        if constexpr (bits == kDecoded) {
            return Ops::load_bytes(tile + 64 * (kHalfTileUnits * half + unit));
        } else if constexpr (bits == kMaxBits) {   // the code is 128 + value
            const B value = codes<bits, unit>(tile, ahead, half);
            return bias == 128 ? value : Ops::xor_bytes(value, 0x80);
        } else {
            return Ops::template lookup_bytes<bits>(table.bytes, codes<bits, unit>(tile, ahead, half));
        }
    }

    template <int bits, int bias>
    static void decode_tile(const uint8_t* tile, size_t ahead, const CentroidTable& table, uint8_t* out) {
        for (int half = 0; half < 2; ++half, out += 64 * kHalfTileUnits) {
            unrolled<kHalfTileUnits>([&](auto unit) TQ_LAMBDA {
                Ops::store_bytes(static_cast<void*>(out + 64 * unit), centroids<bits, bias, unit>(tile, ahead, half, table));
            });
        }
    }

    // Steps [first, end) of a block of the head as tiles of centroids; out: step 0's.
    template <int bias>
    static void decode_steps(const HeadTiles& head, int64_t block, int first, int end, uint8_t* out) {
        using Decode = void (*)(const uint8_t*, size_t, const CentroidTable&, uint8_t*);
        static constexpr Decode table[] = {decode_tile<2, bias>, decode_tile<3, bias>, decode_tile<4, bias>, decode_tile<5, bias>,
                                           decode_tile<6, bias>, decode_tile<7, bias>, decode_tile<8, bias>};
        const Decode decode = table[head.bits - kMinBits];
        for (int step = first; step < end; ++step) decode(head.tiles[step].at(block), head.tiles[step].ahead(), head.table, out + kTileValues * step);
    }
};

}  // namespace tq::attention_impl
