// The two integer products of attention over Ops: query rows x key centroids, weights x value centroids. Exact in
// int32.
//
// A kernel is made for each source (see tiles-inl.h) and number of rows. Packed codes become centroids in
// registers, each once for all rows of the batch.
#pragma once

#include <cstring>

#include "turboquant/attention/plan.h"
#include "turboquant/cpu/attention/softmax-inl.h"
#include "turboquant/cpu/attention/tiles-inl.h"

namespace tq::attention_impl {

// 7-bit digits that a weight is cut into.
TQ_INLINE constexpr int weight_digits(int value_bits) {
    return value_bits >= kWideWeightBits ? 2 : 1;
}

template <class Ops>
struct DotKernels {
    using F = typename Ops::F;
    using I = typename Ops::I;
    using B = typename Ops::B;
    using Decoder = TileDecoder<Ops>;

    static constexpr int kMaxBatchRows = smaller(4, Ops::kKeyAccumulators);  // rows of one kernel call

    // 1, 2 or 4: at most x.
    static TQ_INLINE constexpr int part_of_four(int x) { return x >= 4 ? 4 : x >= 2 ? 2 : 1; }

    // Operands of both products for one block of 64 cells. Rows are numbered in the tile.
    struct Block {
        const HeadTiles* head;
        BlockRecord record;     // scales
        BlockRecord codes;      // the same record, or decoded tiles
        const uint32_t* tiles;  // where the head's tiles lie in `codes`
        TQ_INLINE const uint8_t* tile(int step) const { return codes.bytes + tiles[step]; }
    };

    // ---- logits ---------------------------------------------------------------------------------------------------

    // Rows of int8 queries, four dims to a word, so that one base address serves all rows of a batch.
    struct Queries {
        int32_t* words;        // [head_dim / 4][kMaxTileRows]
        int32_t* bias;         // [segment][kMaxTileRows]: -kKeyBias * sum(q)
        const float* centers;  // [row]: q . the center of the block's keys, rows center_stride apart
        size_t center_stride;
    };

    // out[row][cell], rows kSpanCells apart, = centers[row] + sum over dims of key scale * (q . centroid), in units of
    // the query's scale, for n rows and 16 * vectors cells from vector `first` of 16 cells in a half tile (two vectors)
    // on.
    template <int source, int n, int vectors, int first>
    static TQ_INLINE void dots_of_cells(const Block& block, const Queries& queries, int row, int half, float* out) {
        constexpr int halves = vectors == 4 ? 2 : 1;
        F sums[n][vectors];
        TQ_UNROLL
        for (int r = 0; r < n; ++r) {
            TQ_UNROLL
            for (int v = 0; v < vectors; ++v)
                sums[r][v] = Ops::set1(queries.centers[queries.center_stride * (row + r)]);
        }
        const HeadTiles& head = *block.head;
        for (int s = 0; s < head.segments.count; ++s) {
            const Segment& segment = head.segments.at[s];
            I acc[n][vectors];
            typename Decoder::template PathReader<source, Side::kKey> readers[halves];
            TQ_UNROLL
            for (int h = 0; h < halves; ++h) readers[h] = {block.tile(segment.first_step), segment, half + h};
            const int32_t* bias = queries.bias + kMaxTileRows * s + row;
            TQ_UNROLL
            for (int r = 0; r < n; ++r) {
                TQ_UNROLL
                for (int v = 0; v < vectors; ++v) acc[r][v] = Ops::set1_int(bias[r]);
            }
            for (int step = segment.first_step; step < segment.first_step + segment.n_steps; ++step) {
                const uint8_t* tile = block.tile(step);
                const ptrdiff_t ahead = block.codes.ahead;
                const int32_t* q = queries.words + kMaxTileRows * 4 * step + row;
                typename Decoder::template Path<source> paths[halves];
                TQ_UNROLL
                for (int h = 0; h < halves; ++h) paths[h] = readers[h].next(tile, ahead, half + h);
                TQ_UNROLL
                for (int i = 0; i < 4 * vectors; ++i) {
                    const int quad = i / vectors, v = i % vectors, unit = 4 * (first + v) + quad,
                              h = unit / kHalfTileUnits;
                    const B keys = Decoder::template centroids<source, Ops::kKeyBias>(
                        unit % kHalfTileUnits, tile, paths[h], ahead, half + h, head.table);
                    TQ_UNROLL
                    for (int r = 0; r < n; ++r) acc[r][v] = Ops::dot_key(acc[r][v], keys, q[kMaxTileRows * quad + r]);
                }
            }
            const uint8_t* scales = block.record.bytes + head.scales[s] + 32 * half + 16 * first;
            TQ_UNROLL
            for (int v = 0; v < vectors; ++v) {
                const F scale = Ops::load_scale(scales + 16 * v);
                TQ_UNROLL
                for (int r = 0; r < n; ++r) sums[r][v] = Ops::fma(Ops::to_float(acc[r][v]), scale, sums[r][v]);
            }
        }
        TQ_UNROLL
        for (int r = 0; r < n; ++r) {
            TQ_UNROLL
            for (int v = 0; v < vectors; ++v)
                Ops::store(out + kSpanCells * r + 32 * half + 16 * (first + v), sums[r][v]);
        }
    }

    template <int source, int n>
    static void key_dots(const Block& block, const Queries& queries, int row, float* out) {
        constexpr int vectors = part_of_four(Ops::kKeyAccumulators / n);
        if constexpr (vectors == 4) return dots_of_cells<source, n, 4, 0>(block, queries, row, 0, out);
        for (int half = 0; half < 2; ++half) {
            dots_of_cells<source, n, smaller(2, vectors), 0>(block, queries, row, half, out);
            if constexpr (vectors == 1) dots_of_cells<source, n, 1, 1>(block, queries, row, half, out);
        }
    }

    static TQ_INLINE int32_t four_bytes(const uint8_t* p) {
        int32_t word;
        std::memcpy(&word, p, sizeof word);
        return word;
    }

    // ---- weighted sums --------------------------------------------------------------------------------------------

    template <int source>
    using ValuePaths = typename Decoder::template PathReader<source, Side::kValue>[2];  // readers of both half tiles

    // out[row][16 * step + lane] += unit[row] * sum over cells of weight * centroid, for n rows and `steps` steps.
    // weights: of this block, rows kRowWeights apart. No branch on unit == 0 here: GCC would move a row's whole product
    // behind it.
    template <int source, int n, int digits, int steps>
    static TQ_INLINE void sums_of_steps(const Block& block, int step, ValuePaths<source>& readers,
                                        const uint8_t* weights, const float* unit, float* out, size_t stride) {
        I acc[n][digits][steps];
        TQ_UNROLL
        for (int i = 0; i < n * digits * steps; ++i)
            acc[i / (digits * steps)][i / steps % digits][i % steps] = Ops::set1_int(0);
        const uint8_t* tiles[steps];
        const ptrdiff_t ahead = block.codes.ahead;
        TQ_UNROLL
        for (int s = 0; s < steps; ++s) tiles[s] = block.tile(step + s);
        for (int half = 0; half < 2; ++half, weights += 4 * kHalfTileUnits) {
            typename Decoder::template Path<source> paths[steps];
            TQ_UNROLL
            for (int s = 0; s < steps; ++s) paths[s] = readers[half].next(tiles[s], ahead, half);
            TQ_UNROLL
            for (int quad = 0; quad < kHalfTileUnits; ++quad) {
                B values[steps];
                TQ_UNROLL
                for (int s = 0; s < steps; ++s) {
                    values[s] = Decoder::template centroids<source, 0>(quad, tiles[s], paths[s], ahead, half,
                                                                       block.head->table);
                }
                TQ_UNROLL
                for (int i = 0; i < n * digits * steps; ++i) {
                    const int r = i / (digits * steps), d = i / steps % digits, s = i % steps;
                    acc[r][d][s] = Ops::dot_value(
                        acc[r][d][s], four_bytes(weights + kRowWeights * r + kBlockCells * d + 4 * quad), values[s]);
                }
            }
        }
        TQ_UNROLL
        for (int r = 0; r < n; ++r) {
            float* target = out + stride * r + kStepDims * step;
            TQ_UNROLL
            for (int s = 0; s < steps; ++s) {
                F sum = Ops::to_float(acc[r][0][s]);
                if constexpr (digits == 2) sum = Ops::fma(sum, Ops::set1(128.0f), Ops::to_float(acc[r][1][s]));
                Ops::store(target + 16 * s, Ops::fma(sum, Ops::set1(unit[r]), Ops::load(target + 16 * s)));
            }
        }
    }

    // One segment of the head. out: row 0 of the batch, rows `stride` floats apart.
    template <int source, int n, int digits>
    static void weighted_sums(const Block& block, const Segment& segment, const uint8_t* weights, const float* unit,
                              float* out, size_t stride) {
        constexpr int steps = part_of_four(Ops::kValueAccumulators / (n * digits));
        int step = segment.first_step;
        const int end = step + segment.n_steps;
        const uint8_t* first = block.tile(step);
        ValuePaths<source> readers = {{first, segment, 0}, {first, segment, 1}};
        for (; step + steps <= end; step += steps)
            sums_of_steps<source, n, digits, steps>(block, step, readers, weights, unit, out, stride);
        for (; step < end; ++step)
            sums_of_steps<source, n, digits, 1>(block, step, readers, weights, unit, out, stride);
    }

    // ---- choosing a kernel ----------------------------------------------------------------------------------------

    using KeyDots = void (*)(const Block&, const Queries&, int row, float* out);
    using WeightedSums = void (*)(const Block&, const Segment&, const uint8_t* weights, const float* unit, float* out,
                                  size_t stride);

    template <int n>
    static KeyDots key_dots_for(bool decoded, int source) {
        if constexpr (Ops::kDecodesInRegisters) {
            if (!decoded) return key_dots_from_table<n>(source);
        }
        return key_dots<kDecoded, n>;
    }

    // The source decides the digits even where the tiles are decoded.
    template <int n>
    static WeightedSums weighted_sums_for(bool decoded, int source) {
        if constexpr (Ops::kDecodesInRegisters) {
            if (!decoded) return weighted_sums_from_table<n>(source);
        }
        return weight_digits(bits_of(source)) == 1 ? weighted_sums<kDecoded, n, 1> : weighted_sums<kDecoded, n, 2>;
    }

  private:
    template <int n>
    static TQ_INLINE KeyDots key_dots_from_table(int source) {
        return key_dots_at<n>(std::make_integer_sequence<int, n_sources()>(), index_of_source(source));
    }

    template <int n, int... i>
    static TQ_INLINE KeyDots key_dots_at(std::integer_sequence<int, i...>, int index) {
        static constexpr KeyDots kTable[] = {key_dots<source_at(i), n>...};
        return kTable[index];
    }

    template <int n>
    static TQ_INLINE WeightedSums weighted_sums_from_table(int source) {
        return weighted_sums_at<n>(std::make_integer_sequence<int, n_sources()>(), index_of_source(source));
    }

    template <int n, int... i>
    static TQ_INLINE WeightedSums weighted_sums_at(std::integer_sequence<int, i...>, int index) {
        static constexpr WeightedSums kTable[] = {
            weighted_sums<source_at(i), n, weight_digits(bits_of(source_at(i)))>...};
        return kTable[index];
    }
};

}  // namespace tq::attention_impl
