// The attention algorithm over Ops (simd/ops_*.h). Written once, compiled per ISA; no ISA changes a bit of the result.
//
// For every block of 64 cells that some row of the tile attends to:
//   1. decode the block's keys to int8 centroids in L1 (lanes are cells), for all rows of the tile at once
//   2. logits: int8 query x int8 centroid dot products, exact in int32; times key scale, query scale
//   3. softmax relative to the block's own maximum
//   4. decode the values (lanes are dims); weights p * value scale become 7-bit integers relative to their largest
//      (two 7-bit digits from kWideWeightBits on), with a fixed dither so that small weights keep their total
//   5. exact int32 weighted sums, added to the row's output
// Logits are kept in base 2.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "turboquant/attention/kernels.h"
#include "turboquant/base/inline.h"

namespace tq::attention_impl {

inline constexpr float kLog2e = 1.44269504088896340736f;
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr uint16_t kHalfMinusInfinity = 0xfc00;
inline constexpr int kMaxSegments = 40;      // (head, group) intersections of one head
inline constexpr int kRowBatch = 4;          // rows that a kernel keeps in registers

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

// One query row, ready for integer dot products.
struct PreparedQuery {
    float logit_scale;              // turns sum(key scale * dot) into a logit; NaN if the query is not finite
    int32_t bias[kMaxSegments];     // -kKeyBias * sum(q) of each segment
    int8_t q[];                     // head_dim
};

// Running softmax of a row: maximum, sum and output relative to it. Partials in the workspace have the same form.
struct Accumulator {
    float* max;
    float* sum;
    float* out;   // head_dim_v
};

template <class T>
TQ_INLINE T* at_byte(T* base, size_t bytes) {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(base) + bytes);
}

struct Tile {
    int64_t stream;
    int head_kv;
    int64_t first_row;   // of rows_per_head_kv
    int n_rows;
    int64_t first_chunk, end_chunk;
};

static TQ_INLINE Tile tile_of_item(const AttentionGeometry& g, int64_t item) {
    Tile t;
    const int64_t chunks = g.split ? g.n_chunks : 1;
    const int64_t chunk = item % chunks;
    item /= chunks;
    // Late rows see the most cells under a causal mask: start with them, so that the threads end together.
    t.first_row = (g.n_row_tiles - 1 - item % g.n_row_tiles) * kMaxTileRows;
    item /= g.n_row_tiles;
    t.head_kv = static_cast<int>(item % g.shape.n_head_kv);
    t.stream = item / g.shape.n_head_kv;
    t.n_rows = static_cast<int>(std::min<int64_t>(kMaxTileRows, g.rows_per_head_kv - t.first_row));
    t.first_chunk = g.split ? chunk : 0;
    t.end_chunk = g.split ? chunk + 1 : g.n_chunks;
    return t;
}

// (stream, token, head) rows are numbered in that order in the workspace.
static TQ_INLINE int64_t row_index(const AttentionGeometry& g, int64_t stream, int64_t token, int head) {
    return (stream * g.shape.n_tokens + token) * g.shape.n_head + head;
}

// One thread's memory, cut from its part of the workspace.
struct Scratch {
    uint8_t* key_tiles;      // [step][unit][64]
    uint8_t* value_tiles;
    float* key_scales;       // [segment][64]
    float* value_scales;
    float* logits;           // [row][64]; probabilities after the softmax
    float* masks;            // [row][64]
    float* chunk;            // [row] accumulators of this chunk
    float* total;            // [row] accumulators over all chunks
    uint8_t* weights;        // [row batch][2 digits][64]
    size_t bytes;

    Scratch(const AttentionGeometry& g, char* base) {
        const char* start = base;
        key_tiles = take<uint8_t>(base, size_t{64} * g.shape.head_dim_k);
        value_tiles = take<uint8_t>(base, size_t{64} * g.shape.head_dim_v);
        key_scales = take<float>(base, size_t{kMaxSegments} * kBlockCells);
        value_scales = take<float>(base, size_t{kMaxSegments} * kBlockCells);
        logits = take<float>(base, size_t{kMaxTileRows} * kBlockCells);
        masks = take<float>(base, size_t{kMaxTileRows} * kBlockCells);
        chunk = take<float>(base, kMaxTileRows * g.partial_floats);
        total = take<float>(base, kMaxTileRows * g.partial_floats);
        weights = take<uint8_t>(base, size_t{kRowBatch} * 2 * kBlockCells);
        bytes = static_cast<size_t>(base - start);
    }

    template <class T>
    static T* take(char*& base, size_t count) {
        T* taken = reinterpret_cast<T*>(base);
        base += (count * sizeof(T) + 63) / 64 * 64;
        return taken;
    }
};

static TQ_INLINE Accumulator accumulator(float* base, size_t stride, int64_t index) {
    float* p = base + static_cast<size_t>(index) * stride;
    return {p, p + 1, p + 16};
}

// The bytes that decoded tiles are made of, padded for 64-byte table loads.
struct CentroidTable {
    alignas(64) uint8_t bytes[128];
};

// Order in which weights of a block are rounded up: bit-reversed, so that any run of cells is treated evenly.
struct Dither {
    alignas(64) float offset[kBlockCells];
    constexpr Dither() : offset{} {
        for (int i = 0; i < kBlockCells; ++i) {
            int reversed = 0;
            for (int bit = 0; bit < 6; ++bit) reversed |= ((i >> bit) & 1) << (5 - bit);
            offset[i] = (static_cast<float>(reversed) + 0.5f) / kBlockCells - 0.5f;
        }
    }
};
inline constexpr Dither kDither;

template <class Ops>
struct Kernels {
    using F = typename Ops::F;
    using I = typename Ops::I;
    using B = typename Ops::B;

    // ---- elementary functions -------------------------------------------------------------------------------------

    // 2^x for x <= 126: relative error below 4e-7; exactly 0 for x <= -127, exactly 1 for 0.
    static TQ_INLINE F exp2(F x) {
        x = Ops::max(x, Ops::set1(-127.0f));
        const I n = Ops::round_to_int(x);
        const F f = Ops::sub(x, Ops::to_float(n));
        F p = Ops::set1(1.5403530e-4f);
        p = Ops::fma(p, f, Ops::set1(1.3333558e-3f));
        p = Ops::fma(p, f, Ops::set1(9.6181291e-3f));
        p = Ops::fma(p, f, Ops::set1(5.5504109e-2f));
        p = Ops::fma(p, f, Ops::set1(2.4022651e-1f));
        p = Ops::fma(p, f, Ops::set1(6.9314718e-1f));
        p = Ops::fma(p, f, Ops::set1(1.0f));
        return Ops::mul(p, Ops::pow2(n));
    }

    static TQ_INLINE float exp2(float x) {
        alignas(64) float lanes[16];
        Ops::store(lanes, exp2(Ops::set1(x)));
        return lanes[0];
    }

    // tanh x = 1 - 2 / (e^2x + 1)
    static TQ_INLINE F tanh(F x) {
        const F e = exp2(Ops::min(Ops::mul(x, Ops::set1(2.0f * kLog2e)), Ops::set1(126.0f)));
        return Ops::sub(Ops::set1(1.0f), Ops::div(Ops::set1(2.0f), Ops::add(e, Ops::set1(1.0f))));
    }

    // ---- decoding tiles -------------------------------------------------------------------------------------------

    template <int bits, int unit, int plane_index>
    static TQ_INLINE B plane_codes(const uint8_t* tile) {
        constexpr CodePlane plane = code_planes(bits).plane[plane_index];
        constexpr int per_vector = 8 / plane.width;
        const B packed = Ops::load_bytes(tile + plane.byte_offset + 64 * (unit / per_vector));
        const B codes = Ops::template extract<plane.width * (unit % per_vector), plane.width>(packed);
        if constexpr (plane.shift == 0) return codes;
        else return Ops::template shift_left<plane.shift>(codes);
    }

    template <int bits, int unit>
    static TQ_INLINE B unit_codes(const uint8_t* tile) {
        constexpr int n_planes = code_planes(bits).count;
        B codes = plane_codes<bits, unit, 0>(tile);
        if constexpr (n_planes > 1) codes = Ops::or_bytes(codes, plane_codes<bits, unit, 1>(tile));
        if constexpr (n_planes > 2) codes = Ops::or_bytes(codes, plane_codes<bits, unit, 2>(tile));
        return codes;
    }

    // 1024 codes -> 1024 centroids (+ bias), unit by unit.
    template <int bits, int bias>
    static void decode_tile(const uint8_t* tile, const CentroidTable& table, uint8_t* out) {
        [&]<int... unit>(std::integer_sequence<int, unit...>) {
            (Ops::store_bytes(static_cast<void*>(out + 64 * unit), decode_unit<bits, bias, unit>(tile, table)), ...);
        }(std::make_integer_sequence<int, kTileUnits>());
    }

    template <int bits, int bias, int unit>
    static TQ_INLINE B decode_unit(const uint8_t* tile, const CentroidTable& table) {
        const B codes = unit_codes<bits, unit>(tile);
        if constexpr (bits == kMaxBits) return bias == 128 ? codes : Ops::xor_bytes(codes, 0x80);  // code = 128 + value
        else return Ops::template lookup_bytes<bits>(table.bytes, codes);
    }

    using DecodeTile = void (*)(const uint8_t*, const CentroidTable&, uint8_t*);
    template <int bias>
    static DecodeTile decode_tile_for(int bits) {
        static constexpr DecodeTile table[] = {decode_tile<2, bias>, decode_tile<3, bias>, decode_tile<4, bias>, decode_tile<5, bias>,
                                               decode_tile<6, bias>, decode_tile<7, bias>, decode_tile<8, bias>};
        return table[bits - kMinBits];
    }

    static CentroidTable centroid_table(int bits, int bias) {
        CentroidTable table{};
        if (bits == kMaxBits) return table;
        const Codebook& book = codebook(bits);
        for (int code = 0; code < (1 << bits); ++code) table.bytes[code] = static_cast<uint8_t>(book.centroid[code] + bias);
        return table;
    }

    // One head's bytes: block b of a step (or segment) starts at `first + b * stride`.
    struct Strided {
        const uint8_t* first;
        size_t stride;
    };

    struct Side {
        int n_steps;
        Segments segments;
        Strided tiles[kMaxHeadDim / kStepDims];
        Strided scales[kMaxSegments];
        CentroidTable table;
        DecodeTile decode;

        // One head's part of a block: centroid tiles and float scales.
        TQ_INLINE void load_block(int64_t block, uint8_t* tile_out, float* scale_out) const {
            for (int step = 0; step < n_steps; ++step) {
                decode(tiles[step].first + block * tiles[step].stride, table, tile_out + kTileValues * step);
            }
            for (int s = 0; s < segments.count; ++s) {
                const uint8_t* codes = scales[s].first + block * scales[s].stride;
                for (int i = 0; i < kBlockCells; i += 16) Ops::store(scale_out + kBlockCells * s + i, Ops::load_scale(codes + i));
            }
        }
    };

    template <int bias>
    static Side make_side(const PackedTensor& tensor, int64_t stream, int head_dim, int head_kv) {
        const PackedLayout& layout = tensor.codec->layout();
        Side side;
        side.n_steps = head_dim / kStepDims;
        side.segments = segments_of_head(layout, head_dim, head_kv);
        for (int step = 0; step < side.n_steps; ++step) {
            const int64_t in_row = int64_t{head_kv} * side.n_steps + step;
            const int64_t tiles_in_block = layout.steps_in_group(layout.group_of_step(in_row));
            side.tiles[step] = {tensor.data + layout.tile_offset(stream, in_row, 0), layout.tile_bytes() * tiles_in_block};
        }
        for (int s = 0; s < side.segments.count; ++s) {
            side.scales[s] = {tensor.data + layout.scale_offset(stream, side.segments.at[s].group, 0), kBlockCells};
        }
        side.table = centroid_table(layout.bits, bias);
        side.decode = decode_tile_for<bias>(layout.bits);
        return side;
    }

    // ---- queries --------------------------------------------------------------------------------------------------

    static PreparedQuery* query_at(const AttentionGeometry& g, char* workspace, int64_t row) {
        return reinterpret_cast<PreparedQuery*>(workspace + static_cast<size_t>(row) * g.query_bytes);
    }

    // item: a (stream, token); all its heads.
    static void prepare(const AttentionGeometry& g, int64_t item, const AttentionInputs& in, char* workspace) {
        const AttentionShape& s = g.shape;
        const int64_t stream = item / s.n_tokens, token = item % s.n_tokens;
        alignas(64) float rotated[kMaxHeadDim];
        for (int head = 0; head < s.n_head; ++head) {
            const float* q = at_byte(in.q, stream * in.q_stream_stride + token * in.q_token_stride + head * in.q_head_stride);
            in.k.codec->kernels().rotate(in.k.codec->rotation(), q, rotated);
            quantize_query(g, rotated, in.k.codec->layout(), head / g.group_size, query_at(g, workspace, row_index(g, stream, token, head)));
        }
    }

    static void quantize_query(const AttentionGeometry& g, const float* rotated, const PackedLayout& layout, int head_kv, PreparedQuery* out) {
        const int n = g.shape.head_dim_k;
        F top = Ops::set1(0), sum = Ops::set1(0);
        for (int i = 0; i < n; i += 16) {
            const F magnitude = Ops::abs(Ops::load(rotated + i));
            top = Ops::max(top, magnitude);
            sum = Ops::add(sum, magnitude);
        }
        const float largest = Ops::reduce_max(top);
        const bool finite = Ops::reduce_add(sum) < kInfinity;   // false for NaN too
        // A subnormal `largest` would overflow the inverse.
        const F inverse = Ops::set1(finite && largest > 0 ? std::min(kCentroidMax / largest, 0x1p126f) : 0.0f);
        for (int i = 0; i < n; i += 16) {
            const F value = finite ? Ops::mul(Ops::load(rotated + i), inverse) : Ops::set1(0);
            Ops::store_bytes(reinterpret_cast<uint8_t*>(out->q + i), Ops::round_to_int(value));
        }
        const float log_factor = g.shape.softcap > 0 ? 1.0f : kLog2e;
        out->logit_scale = finite ? largest / kCentroidMax * (g.shape.scale * log_factor) : std::numeric_limits<float>::quiet_NaN();
        const Segments segments = segments_of_head(layout, n, head_kv);
        for (int i = 0; i < segments.count; ++i) {
            int32_t total = 0;
            const int8_t* q = out->q + segments.at[i].first_step * kStepDims;
            for (int d = 0; d < segments.at[i].n_steps * kStepDims; ++d) total += q[d];
            out->bias[i] = -Ops::kKeyBias * total;
        }
    }

    // ---- logits ---------------------------------------------------------------------------------------------------

    static TQ_INLINE int32_t four_bytes(const void* p) {
        int32_t x;
        std::memcpy(&x, p, 4);
        return x;
    }

    // sum over dims of key scale * (q . centroid) for n rows and 32 cells, in units of the query's scale.
    template <int n>
    static TQ_INLINE void dot_products(const Side& keys, const Scratch& m, PreparedQuery* const* q, int cell, float* const* out) {
        constexpr int kVectors = 2;   // cells / 16: two share each query broadcast
        F sums[n][kVectors];
        for (int r = 0; r < n; ++r) for (int v = 0; v < kVectors; ++v) sums[r][v] = Ops::set1(0);
        for (int s = 0; s < keys.segments.count; ++s) {
            const Segment& segment = keys.segments.at[s];
            I acc[n][kVectors];
            for (int r = 0; r < n; ++r) for (int v = 0; v < kVectors; ++v) acc[r][v] = Ops::set1_int(q[r]->bias[s]);
            const uint8_t* tile = m.key_tiles + kTileValues * segment.first_step + 16 * cell;
            for (int step = 0; step < segment.n_steps; ++step, tile += kTileValues) {
                const int dim = (segment.first_step + step) * kStepDims;
                for (int quad = 0; quad < 4; ++quad) {
                    B centroids[kVectors];
                    for (int v = 0; v < kVectors; ++v) centroids[v] = Ops::load_bytes(tile + 256 * v + 64 * quad);
                    for (int r = 0; r < n; ++r) {
                        const int32_t query = four_bytes(q[r]->q + dim + 4 * quad);
                        for (int v = 0; v < kVectors; ++v) acc[r][v] = Ops::dot_key(acc[r][v], centroids[v], query);
                    }
                }
            }
            for (int v = 0; v < kVectors; ++v) {
                const F scale = Ops::load(m.key_scales + kBlockCells * s + cell + 16 * v);
                for (int r = 0; r < n; ++r) sums[r][v] = Ops::fma(Ops::to_float(acc[r][v]), scale, sums[r][v]);
            }
        }
        for (int r = 0; r < n; ++r) for (int v = 0; v < kVectors; ++v) Ops::store(out[r] + cell + 16 * v, sums[r][v]);
    }

    // Base-2 logits of one row from its dot products: scale, softcap, mask (already times slope and log2 e).
    static TQ_INLINE void finish_logits(const AttentionShape& s, float logit_scale, const float* mask, float* logits) {
        for (int i = 0; i < kBlockCells; i += 16) {
            const F dot = Ops::load(logits + i);
            const F added = Ops::load(mask + i);
            if (s.softcap > 0) {
                const F capped = tanh(Ops::mul(dot, Ops::set1(logit_scale / s.softcap)));
                Ops::store(logits + i, Ops::fma(capped, Ops::set1(s.softcap * kLog2e), added));
            } else {
                Ops::store(logits + i, Ops::fma(dot, Ops::set1(logit_scale), added));
            }
        }
    }

    // ---- softmax --------------------------------------------------------------------------------------------------

    // Turns logits into probabilities relative to the block's maximum, and folds the block's maximum and sum into the row's.
    // Returns the factor of this block's outputs relative to the row's (new) maximum; the row's outputs are rescaled here.
    static TQ_INLINE float softmax_block(float* logits, const Accumulator& row, int head_dim_v) {
        F x[4];
        for (int v = 0; v < 4; ++v) x[v] = Ops::load(logits + 16 * v);
        const float top = Ops::reduce_max(Ops::max(Ops::max(x[0], x[1]), Ops::max(x[2], x[3])));
        if (!(top > -kInfinity)) {   // only where the query is not finite: the row ends as NaN
            for (int v = 0; v < 4; ++v) Ops::store(logits + 16 * v, Ops::set1(0));
            return 0;
        }
        for (int v = 0; v < 4; ++v) {
            x[v] = exp2(Ops::sub(x[v], Ops::set1(top)));
            Ops::store(logits + 16 * v, x[v]);
        }
        const float sum = Ops::reduce_add(Ops::add(Ops::add(x[0], x[1]), Ops::add(x[2], x[3])));
        if (top <= *row.max) {
            const float factor = exp2(top - *row.max);
            *row.sum = std::fma(sum, factor, *row.sum);
            return factor;
        }
        const float rescale = exp2(*row.max - top);
        *row.sum = std::fma(*row.sum, rescale, sum);
        for (int d = 0; d < head_dim_v; d += 16) Ops::store(row.out + d, Ops::mul(Ops::load(row.out + d), Ops::set1(rescale)));
        *row.max = top;
        return 1;
    }

    // ---- weighted sums --------------------------------------------------------------------------------------------

    // p * value scale as integers of one 7-bit digit (or two: high, then low, 64 bytes each).
    // Returns what one unit of the integer sum is worth; 0 if all weights are 0.
    template <int digits>
    static TQ_INLINE float quantize_weights(const float* p, const float* value_scales, uint8_t* out) {
        F w[4];
        for (int v = 0; v < 4; ++v) w[v] = Ops::mul(Ops::load(p + 16 * v), Ops::load(value_scales + 16 * v));
        const float top = Ops::reduce_max(Ops::max(Ops::max(w[0], w[1]), Ops::max(w[2], w[3])));
        if (!(top > 0)) return 0;
        constexpr float kLargest = digits == 1 ? 127.0f : 127.0f * 128.0f;
        // A tiny `top` (subnormal) would overflow the inverse.
        const F inverse = Ops::set1(std::min(kLargest / top, 0x1p126f));
        for (int v = 0; v < 4; ++v) {
            const I integer = Ops::round_to_int(Ops::fma(w[v], inverse, Ops::load(kDither.offset + 16 * v)));
            if constexpr (digits == 1) {
                Ops::store_bytes(out + 16 * v, integer);
            } else {
                Ops::store_bytes(out + 16 * v, Ops::template shift_right_int<7>(integer));
                Ops::store_bytes(out + kBlockCells + 16 * v, Ops::and_int(integer, 127));
            }
        }
        return top / kLargest;
    }

    // out[row] += unit[row] * sum over cells of weight * centroid, for one segment of `steps` steps.
    template <int n, int steps, int digits>
    static TQ_INLINE void weighted_sum(const uint8_t* tiles, const uint8_t* weights, const float* unit, float* const* out) {
        I acc[n][digits][steps];
        for (int r = 0; r < n; ++r) for (int d = 0; d < digits; ++d) for (int s = 0; s < steps; ++s) acc[r][d][s] = Ops::set1_int(0);
        for (int quad = 0; quad < kTileUnits; ++quad) {
            B centroids[steps];
            for (int s = 0; s < steps; ++s) centroids[s] = Ops::load_bytes(tiles + kTileValues * s + 64 * quad);
            for (int r = 0; r < n; ++r) {
                for (int d = 0; d < digits; ++d) {
                    const int32_t weight = four_bytes(weights + (2 * r + d) * kBlockCells + 4 * quad);
                    for (int s = 0; s < steps; ++s) acc[r][d][s] = Ops::dot_value(acc[r][d][s], weight, centroids[s]);
                }
            }
        }
        for (int r = 0; r < n; ++r) {
            for (int s = 0; s < steps; ++s) {
                F sum = Ops::to_float(acc[r][0][s]);
                if constexpr (digits == 2) sum = Ops::fma(sum, Ops::set1(128.0f), Ops::to_float(acc[r][1][s]));
                Ops::store(out[r] + 16 * s, Ops::fma(sum, Ops::set1(unit[r]), Ops::load(out[r] + 16 * s)));
            }
        }
    }

    template <int n, int digits>
    static TQ_INLINE void add_values(const Side& values, const Scratch& m, const float* const* p, const float* factor, float* const* out) {
        for (int s = 0; s < values.segments.count; ++s) {
            const Segment& segment = values.segments.at[s];
            float unit[n];
            float* target[n];
            for (int r = 0; r < n; ++r) {
                uint8_t* weights = m.weights + 2 * kBlockCells * r;
                unit[r] = factor[r] * quantize_weights<digits>(p[r], m.value_scales + kBlockCells * s, weights);
                if (unit[r] == 0) std::memset(weights, 0, digits * kBlockCells);
                target[r] = out[r] + segment.first_step * kStepDims;
            }
            const uint8_t* tiles = m.value_tiles + kTileValues * segment.first_step;
            switch (segment.n_steps) {
                case 1: weighted_sum<n, 1, digits>(tiles, m.weights, unit, target); break;
                case 2: weighted_sum<n, 2, digits>(tiles, m.weights, unit, target); break;
                case 3: weighted_sum<n, 3, digits>(tiles, m.weights, unit, target); break;
                default: weighted_sum<n, 4, digits>(tiles, m.weights, unit, target); break;
            }
        }
    }

    // ---- one block ------------------------------------------------------------------------------------------------

    struct Rows {
        int count = 0;                                  // rows of the tile that attend to something in this block
        PreparedQuery* query[kMaxTileRows];
        float* logits[kMaxTileRows];
        const float* mask[kMaxTileRows];
        Accumulator accumulator[kMaxTileRows];
    };

    template <int n>
    static void logits_of_batch(const AttentionShape& s, const Side& keys, const Scratch& m, Rows& rows, int first) {
        for (int cell = 0; cell < kBlockCells; cell += 32) dot_products<n>(keys, m, rows.query + first, cell, rows.logits + first);
        for (int r = first; r < first + n; ++r) finish_logits(s, rows.query[r]->logit_scale, rows.mask[r], rows.logits[r]);
    }

    template <int n>
    static void values_of_batch(const AttentionGeometry& g, const Side& values, const Scratch& m, Rows& rows, int first) {
        float factor[n];
        float* out[n];
        for (int r = 0; r < n; ++r) {
            const Accumulator& row = rows.accumulator[first + r];
            factor[r] = softmax_block(rows.logits[first + r], row, g.shape.head_dim_v);
            out[r] = row.out;
        }
        if (g.value_bits >= kWideWeightBits) {
            add_values<n, 2>(values, m, rows.logits + first, factor, out);
        } else {
            add_values<n, 1>(values, m, rows.logits + first, factor, out);
        }
    }

    template <class Fn>
    static TQ_INLINE void for_batches(int count, Fn fn) {
        int first = 0;
        for (; count - first >= 4; first += 4) fn(std::integral_constant<int, 4>(), first);
        if (count - first == 3) fn(std::integral_constant<int, 3>(), first);
        if (count - first == 2) fn(std::integral_constant<int, 2>(), first);
        if (count - first == 1) fn(std::integral_constant<int, 1>(), first);
    }

    static void attend_block(const AttentionGeometry& g, const Side& keys, const Side& values, const Scratch& m, int64_t block, Rows& rows) {
        keys.load_block(block, m.key_tiles, m.key_scales);
        for_batches(rows.count, [&](auto n, int first) { logits_of_batch<n()>(g.shape, keys, m, rows, first); });
        values.load_block(block, m.value_tiles, m.value_scales);
        for_batches(rows.count, [&](auto n, int first) { values_of_batch<n()>(g, values, m, rows, first); });
    }

    // The block's mask in base-2 logits; cells from n_kv on are masked. Returns whether any cell is left.
    static TQ_INLINE bool load_mask(const uint16_t* mask, float slope, int64_t n_kv, int64_t block, float* out) {
        const int64_t begin = block * kBlockCells;
        const int n = static_cast<int>(std::min<int64_t>(kBlockCells, n_kv - begin));
        uint16_t half[kBlockCells];
        if (mask) {
            uint32_t live = 0;
            for (int i = 0; i < n; ++i) live |= static_cast<uint32_t>(mask[begin + i] != kHalfMinusInfinity);
            if (!live) return false;
            std::memcpy(half, mask + begin, sizeof(uint16_t) * n);
        } else {
            std::memset(half, 0, sizeof(uint16_t) * n);
        }
        for (int i = n; i < kBlockCells; ++i) half[i] = kHalfMinusInfinity;
        const F factor = Ops::set1(slope * kLog2e);
        for (int i = 0; i < kBlockCells; i += 16) Ops::store(out + i, Ops::mul(Ops::load_half(half + i), factor));
        return true;
    }

    static void collect_rows(const AttentionGeometry& g, const AttentionInputs& in, char* workspace, const Tile& t, const Scratch& m,
                             int64_t block, Rows& rows) {
        const AttentionShape& s = g.shape;
        rows.count = 0;
        const float* shared_mask = nullptr;   // of the token, where heads do not differ
        int64_t last_token = -1;
        bool live = false;
        for (int i = 0; i < t.n_rows; ++i) {
            const int64_t row = t.first_row + i;
            const int64_t token = row / g.group_size;
            const int head = t.head_kv * g.group_size + static_cast<int>(row % g.group_size);
            if (token != last_token || s.max_bias > 0) {
                const uint16_t* mask = in.mask ? at_byte(in.mask, t.stream * in.mask_stream_stride + token * in.mask_token_stride) : nullptr;
                float* target = m.masks + kBlockCells * i;
                live = load_mask(mask, alibi_slope(s.max_bias, s.n_head, head), s.n_kv, block, target);
                shared_mask = target;
                last_token = token;
            }
            if (!live) continue;
            rows.query[rows.count] = query_at(g, workspace, row_index(g, t.stream, token, head));
            rows.logits[rows.count] = m.logits + kBlockCells * rows.count;
            rows.mask[rows.count] = shared_mask;
            rows.accumulator[rows.count] = accumulator(m.chunk, g.partial_floats, i);
            ++rows.count;
        }
    }

    // ---- items ----------------------------------------------------------------------------------------------------

    static TQ_INLINE void reset(const Accumulator& a, int head_dim_v) {
        *a.max = -kInfinity;
        *a.sum = 0;
        std::memset(a.out, 0, sizeof(float) * head_dim_v);
    }

    // (max, sum, out) of `part` into `total`: exact up to rounding, always in cell order.
    static TQ_INLINE void merge_partial(const Accumulator& part, const Accumulator& total, int head_dim_v) {
        if (*part.sum == 0) return;
        const float top = *part.max > *total.max ? *part.max : *total.max;
        const float keep = exp2(*total.max - top), take = exp2(*part.max - top);
        *total.sum = std::fma(*total.sum, keep, *part.sum * take);
        *total.max = top;
        for (int d = 0; d < head_dim_v; d += 16) {
            const F taken = Ops::mul(Ops::load(part.out + d), Ops::set1(take));
            Ops::store(total.out + d, Ops::fma(Ops::load(total.out + d), Ops::set1(keep), taken));
        }
    }

    // Sinks, normalization, inverse rotation.
    static void finish_row(const AttentionGeometry& g, const AttentionInputs& in, char* workspace, int64_t stream, int64_t token, int head,
                           const Accumulator& total) {
        const int n = g.shape.head_dim_v;
        float* out = at_byte(in.out, stream * in.out_stream_stride + token * in.out_token_stride + head * in.out_head_stride);
        float sum = *total.sum, factor = 1;
        if (in.sinks) {
            const float sink = in.sinks[head] * kLog2e;
            const float top = *total.max > sink ? *total.max : sink;
            factor = exp2(*total.max - top);
            sum = std::fma(sum, factor, exp2(sink - top));
        }
        factor = sum > 0 ? factor / sum : 0.0f;
        const float logit_scale = query_at(g, workspace, row_index(g, stream, token, head))->logit_scale;
        if (logit_scale != logit_scale) factor = logit_scale;   // NaN in, NaN out
        alignas(64) float normalized[kMaxHeadDim];
        for (int d = 0; d < n; d += 16) Ops::store(normalized + d, Ops::mul(Ops::load(total.out + d), Ops::set1(factor)));
        in.v.codec->kernels().rotate_inverse(in.v.codec->rotation(), normalized, out);
    }

    static float* partial_at(const AttentionGeometry& g, char* workspace, int64_t row, int64_t chunk) {
        return reinterpret_cast<float*>(workspace + g.partial_offset) + static_cast<size_t>(row * g.n_chunks + chunk) * g.partial_floats;
    }

    static void attend(const AttentionGeometry& g, int64_t item, int thread, const AttentionInputs& in, char* workspace) {
        const AttentionShape& s = g.shape;
        const Tile t = tile_of_item(g, item);
        const Scratch m(g, workspace + g.scratch_offset + static_cast<size_t>(thread) * g.scratch_bytes);
        const Side keys = make_side<Ops::kKeyBias>(in.k, in.k_first_stream + t.stream, s.head_dim_k, t.head_kv);
        const Side values = make_side<0>(in.v, in.v_first_stream + t.stream, s.head_dim_v, t.head_kv);
        const int64_t n_blocks = (s.n_kv + kBlockCells - 1) / kBlockCells;
        constexpr int64_t kChunkBlocks = kChunkCells / kBlockCells;
        Rows rows;
        if (!g.split) for (int i = 0; i < t.n_rows; ++i) reset(accumulator(m.total, g.partial_floats, i), s.head_dim_v);
        for (int64_t chunk = t.first_chunk; chunk < t.end_chunk; ++chunk) {
            for (int i = 0; i < t.n_rows; ++i) reset(accumulator(m.chunk, g.partial_floats, i), s.head_dim_v);
            const int64_t end = std::min(n_blocks, (chunk + 1) * kChunkBlocks);
            for (int64_t block = chunk * kChunkBlocks; block < end; ++block) {
                collect_rows(g, in, workspace, t, m, block, rows);
                if (rows.count > 0) attend_block(g, keys, values, m, block, rows);
            }
            for (int i = 0; i < t.n_rows; ++i) end_chunk(g, workspace, t, m, chunk, i);
        }
        if (!g.split) finish_tile(g, in, workspace, t, m);
    }

    static TQ_INLINE void end_chunk(const AttentionGeometry& g, char* workspace, const Tile& t, const Scratch& m, int64_t chunk, int i) {
        const Accumulator part = accumulator(m.chunk, g.partial_floats, i);
        if (!g.split) {
            merge_partial(part, accumulator(m.total, g.partial_floats, i), g.shape.head_dim_v);
            return;
        }
        const int64_t row = t.first_row + i;
        const int head = t.head_kv * g.group_size + static_cast<int>(row % g.group_size);
        float* target = partial_at(g, workspace, row_index(g, t.stream, row / g.group_size, head), chunk);
        std::memcpy(target, part.max, sizeof(float) * g.partial_floats);
    }

    static void finish_tile(const AttentionGeometry& g, const AttentionInputs& in, char* workspace, const Tile& t, const Scratch& m) {
        for (int i = 0; i < t.n_rows; ++i) {
            const int64_t row = t.first_row + i;
            const int head = t.head_kv * g.group_size + static_cast<int>(row % g.group_size);
            finish_row(g, in, workspace, t.stream, row / g.group_size, head, accumulator(m.total, g.partial_floats, i));
        }
    }

    // item: a (stream, token, head) row.
    static void merge(const AttentionGeometry& g, int64_t item, const AttentionInputs& in, char* workspace) {
        const AttentionShape& s = g.shape;
        alignas(64) float total[16 + kMaxHeadDim];
        const Accumulator sum = accumulator(total, 0, 0);
        reset(sum, s.head_dim_v);
        for (int64_t chunk = 0; chunk < g.n_chunks; ++chunk) {
            merge_partial(accumulator(partial_at(g, workspace, item, chunk), 0, 0), sum, s.head_dim_v);
        }
        const int64_t token_row = item / s.n_head;
        finish_row(g, in, workspace, token_row / s.n_tokens, token_row % s.n_tokens, static_cast<int>(item % s.n_head), sum);
    }
};

template <class Ops>
constexpr AttentionKernels make_kernels() {
    using K = Kernels<Ops>;
    return {K::prepare, K::attend, K::merge};
}

}  // namespace tq::attention_impl
