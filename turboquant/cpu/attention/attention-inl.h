// The attention algorithm over Ops (cpu/simd/ops_*.h). Written once, compiled per ISA; no ISA changes a bit of the
// result.
//
// These steps run for every span of kSpanBlocks blocks of 64 cells, of the blocks that some row of the tile attends to:
//   1. int8 query x int8 centroid dot products, exact in int32, lanes are cells; times key scale, query scale
//   (dots-inl.h)
//   2. softmax relative to the row's maximum so far in this chunk of cells (softmax-inl.h)
//   3. weights p * value scale become 7-bit integers relative to the largest of their block (two 7-bit digits from
//      kWideWeightBits on), with a fixed dither so that small weights keep their total
//   4. exact int32 weighted sums of value centroids, lanes are dims, added to the rows' outputs (dots-inl.h)
// Centroids come straight from the packed codes in registers; only where many rows share a block are they decoded to L1
// first. Logits are kept in base 2.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>

#include "turboquant/attention/cell_range.h"
#include "turboquant/attention/kernels.h"
#include "turboquant/cpu/attention/centers-inl.h"
#include "turboquant/cpu/attention/dots-inl.h"
#include "turboquant/cpu/attention/exact-inl.h"
#include "turboquant/cpu/attention/mask-inl.h"
#include "turboquant/cpu/attention/row_tile-inl.h"
#include "turboquant/cpu/attention/softmax-inl.h"

namespace tq::attention_impl {

inline constexpr int kDecodeBatches = 3;  // from this many batches of rows on, a block is decoded to L1 once

// One query row, ready for integer dot products.
struct PreparedQuery {
    float logit_scale;           // turns sum(key scale * dot) into a logit; NaN if the query is not finite
    int32_t bias[kMaxSegments];  // -kKeyBias * sum(q) of each segment
    int8_t q[];                  // head_dim
};

template <class Ops>
struct Kernels {
    using F = typename Ops::F;
    using Dots = DotKernels<Ops>;
    using Soft = Softmax<Ops>;
    static constexpr int64_t kChunkBlocks = kChunkCells / kBlockCells;

    // ---- queries --------------------------------------------------------------------------------------------------

    static size_t query_bytes(const AttentionShape& shape) {
        return sizeof(PreparedQuery) + static_cast<size_t>(shape.head_dim_k);
    }
    static size_t scratch_bytes(const AttentionGeometry& g) { return Scratch(g, nullptr).bytes; }

    static PreparedQuery* query_at(const AttentionGeometry& g, char* workspace, int64_t row) {
        return reinterpret_cast<PreparedQuery*>(workspace + static_cast<size_t>(row) * g.query_bytes);
    }

    // item: a (stream, token, KV head); all query heads of the KV head.
    static void prepare(const AttentionGeometry& g, int64_t item, const AttentionInputs& in, char* workspace) {
        const AttentionShape& s = g.shape;
        const int head_kv = static_cast<int>(item % s.n_head_kv);
        const int64_t token = item / s.n_head_kv % s.n_tokens, stream = item / s.n_head_kv / s.n_tokens;
        if (token >= lengths_of_stream(s, in, stream).n_tokens) return;
        alignas(64) float converted[kMaxHeadDim], rotated[kMaxHeadDim];
        for (int head = head_kv * g.group_size; head < (head_kv + 1) * g.group_size; ++head) {
            in.k.codec->rotate_query(head_kv, query_row(g, in, stream, token, head, converted), rotated);
            quantize_query(g, rotated, in.k.codec->format(), head_kv,
                           query_at(g, workspace, row_index(g, stream, token, head)));
        }
    }

    // The query as it came, or converted.
    static const float* query_row(const AttentionGeometry& g, const AttentionInputs& in, int64_t stream, int64_t token,
                                  int head, float* converted) {
        const void* q =
            at_byte(in.q, stream * in.q_stream_stride + token * in.q_token_stride + head * in.q_head_stride);
        if (in.q_type == FloatType::kF32) return static_cast<const float*>(q);
        to_floats(q, in.q_type, g.shape.head_dim_k, converted);
        return converted;
    }

    static void quantize_query(const AttentionGeometry& g, const float* rotated, const RowFormat& format, int head_kv,
                               PreparedQuery* out) {
        const int n = g.shape.head_dim_k;
        F top = Ops::set1(0), sum = Ops::set1(0);
        for (int i = 0; i < n; i += 16) {
            const F magnitude = Ops::abs(Ops::load(rotated + i));
            top = Ops::max(top, magnitude);
            sum = Ops::add(sum, magnitude);
        }
        const float largest = Ops::reduce_max(top);
        const bool finite = Ops::reduce_add(sum) < kInfinity;  // false for NaN too
        // A subnormal `largest` would overflow the inverse.
        const F inverse = Ops::set1(finite && largest > 0 ? smaller(kCentroidMax / largest, 0x1p126f) : 0.0f);
        for (int i = 0; i < n; i += 16) {
            const F value = finite ? Ops::mul(Ops::load(rotated + i), inverse) : Ops::set1(0);
            Ops::store_bytes(reinterpret_cast<uint8_t*>(out->q + i), Ops::round_to_int(value));
        }
        const float log_factor = g.shape.softcap > 0 ? 1.0f : kLog2e;
        out->logit_scale = finite ? largest / kCentroidMax * (g.shape.scale * log_factor) : __builtin_nanf("");
        const Segments segments = segments_of_head(format, n, head_kv);
        for (int i = 0; i < segments.count; ++i) {
            int32_t total = 0;
            const int8_t* q = out->q + segments.at[i].first_step * kStepDims;
            for (int d = 0; d < segments.at[i].n_steps * kStepDims; ++d) total += q[d];
            out->bias[i] = -Ops::kKeyBias * total;
        }
    }

    // ---- one span -------------------------------------------------------------------------------------------------

    // Blocks of a span that some row of the tile attends to, and which rows do (bit masks, kMaxTileRows bits).
    struct Span {
        SpanMasks masks;
        int64_t block[kSpanBlocks];
        uint32_t live_in_block[kSpanBlocks];
        uint32_t live;
    };

    // fn(constant number of rows, first row) for runs of at most kMaxBatchRows rows that cover all live ones.
    template <class Fn>
    static TQ_INLINE void for_batches(uint32_t live, Fn fn) {
        constexpr int limit = Dots::kMaxBatchRows;
        while (live) {
            const int first = __builtin_ctz(live), span = 32 - __builtin_clz(live) - first;
            const int batches = (span + limit - 1) / limit, n = (span + batches - 1) / batches;  // even shares
            [&]<int... i>(std::integer_sequence<int, i...>) TQ_LAMBDA {
                ((n == i + 1 ? fn(std::integral_constant<int, i + 1>(), first) : void()), ...);
            }
            (std::make_integer_sequence<int, limit>());
            live = first + n < 32 ? live >> (first + n) << (first + n) : 0;
        }
    }

    static typename Dots::Block block_of(const Head& head, const BlockRecord& record, bool decoded) {
        if (decoded) return {&head.tiles, record, {head.decoded, 0}, head.decoded_tiles};
        return {&head.tiles, record, record, head.tiles.tiles};
    }

    // Packed codes are decoded in registers for each batch of rows, or to L1 once for all of them.
    static bool decodes_first(uint32_t live) {
        const int rows = 32 - __builtin_clz(live) - __builtin_ctz(live);
        return !Ops::kDecodesInRegisters || rows > (kDecodeBatches - 1) * Dots::kMaxBatchRows;
    }

    // One head's rows of the tile.
    static void attend_span(const AttentionGeometry& g, const Tile& t, int head_of_tile, const Scratch& m,
                            const Span& span) {
        const uint32_t rows = t.rows_of_head(head_of_tile);
        HeadOfTile& head = m.heads[head_of_tile];
        for (int b = 0; b < span.masks.n_blocks; ++b) {
            if (span.live_in_block[b] & rows) add_logits(g, head, m, span, b, rows);
        }
        for_batches(span.live & rows, [&](auto n, int first) {
            Soft::template probabilities<n>(g.shape.softcap, m.logits + kSpanCells * first, m.logit_scale + first,
                                            span.masks, m.chunk, first, g.shape.head_dim_v);
        });
        for (int s = 0; s < head.values.tiles.segments.count; ++s) {
            if (weight_digits(g.value_bits) == 2)
                add_values<2>(head.values, s, m, span, rows);
            else
                add_values<1>(head.values, s, m, span, rows);
        }
    }

    static void add_logits(const AttentionGeometry& g, HeadOfTile& head, const Scratch& m, const Span& span, int b,
                           uint32_t rows) {
        static constexpr float kNoCenter = 0;
        const int64_t block = span.block[b];
        const uint32_t live = span.live_in_block[b] & rows;
        if (!g.keys_centered) {
            multiply(head.keys, m, {m.query_words, m.query_bias, &kNoCenter, 0}, block, live,
                     m.logits + kBlockCells * b);
            return;
        }
        if (const int64_t wanted = block / kCenterRun; wanted != head.loaded_centers) {
            multiply_centers(head, m, wanted, rows);
            head.loaded_centers = wanted;
        }
        multiply(head.keys, m, {m.query_words, m.query_bias, m.centers + block % kCenterRun, kSpanCells}, block, live,
                 m.logits + kBlockCells * b);
        if (block == 0) take_centers_back(m, rows);
    }

    // The first cells have no center. Block 0 is the first of its span.
    static void take_centers_back(const Scratch& m, uint32_t rows) {
        for (; rows != 0; rows &= rows - 1) {
            const int i = __builtin_ctz(rows);
            for (int cell = 0; cell < kUncenteredCells; ++cell)
                m.logits[kSpanCells * i + cell] -= m.centers[kSpanCells * i];
        }
    }

    // All queries of the head times the centers of a run of blocks.
    static void multiply_centers(const HeadOfTile& head, const Scratch& m, int64_t run, uint32_t rows) {
        static constexpr float kNoCenter = 0;
        const HeadTiles tiles = gather_centers<Ops>(head.centers, head.keys.tiles, run, m.key_tiles);
        const BlockRecord record{m.key_tiles, 0};
        const typename Dots::Queries queries{m.query_words, m.query_bias, &kNoCenter, 0};
        for_batches(rows, [&](auto n, int first) {
            Dots::template dots_of_cells<kCenterBits, n, 1, 0>({&tiles, record, record, tiles.tiles}, queries, first, 0,
                                                               m.centers + kSpanCells * first);
        });
    }

    // Queries of the live rows times the keys of one block. out: of row 0, rows kSpanCells apart.
    static void multiply(const Head& keys, const Scratch& m, const typename Dots::Queries& queries, int64_t block,
                         uint32_t live, float* out) {
        const bool decode = decodes_first(live);
        const BlockRecord record = keys.record(block);
        for (int s = 0; decode && s < keys.tiles.segments.count; ++s) {
            const Segment& segment = keys.tiles.segments.at[s];
            TileDecoder<Ops>::template decode_segment<Side::kKey, Ops::kKeyBias>(
                keys.tiles, segment, record, m.key_tiles + kTileValues * segment.first_step);
        }
        prefetch_scales(keys.tiles, record);
        for_batches(live, [&](auto n, int first) {
            const auto dots = Dots::template key_dots_for<n>(decode, keys.tiles.source);
            dots(block_of(keys, record, decode), queries, first, out + kSpanCells * first);
        });
    }

    // Dims of one value segment.
    template <int digits>
    static void add_values(const Head& values, int s, const Scratch& m, const Span& span, uint32_t rows) {
        const Segment& segment = values.tiles.segments.at[s];
        BlockRecord records[kSpanBlocks];
        const uint8_t* scales[kSpanBlocks];
        for (int b = 0; b < span.masks.n_blocks; ++b) {
            records[b] = values.record(span.block[b]);
            scales[b] = records[b].bytes + values.tiles.scales[s];
        }
        for_batches(span.live & rows, [&](auto n, int first) {
            Soft::template quantize_weights<n, digits>(m.logits + kSpanCells * first, scales, span.masks.n_blocks,
                                                       m.weights + kRowWeights * first, m.units + first);
        });
        for (int b = 0; b < span.masks.n_blocks; ++b) {
            const uint32_t live = span.live_in_block[b] & rows;
            if (!live) continue;
            const bool decode = decodes_first(live);
            if (decode) {
                TileDecoder<Ops>::template decode_segment<Side::kValue, 0>(
                    values.tiles, segment, records[b], m.value_tiles + kTileValues * segment.first_step);
            }
            prefetch(scales[b] + records[b].ahead);
            for_batches(live, [&](auto n, int first) {
                const auto sums = Dots::template weighted_sums_for<n>(decode, values.tiles.source);
                sums(block_of(values, records[b], decode), segment, m.weights + kRowWeights * first + kBlockWeights * b,
                     m.units + kPaddedRows * b + first, m.chunk.out + m.chunk.stride * first, m.chunk.stride);
            });
        }
    }

    // ---- blocks ---------------------------------------------------------------------------------------------------

    // Row i of a tile: its token and its query head.
    struct RowOfTile {
        int64_t token;
        int head;
    };
    static TQ_INLINE RowOfTile row_of_tile(const AttentionGeometry& g, const Tile& t, int i) {
        const int64_t row = t.first_row + i % t.rows_per_head;
        return {row / g.group_size,
                (t.head_kv + i / t.rows_per_head) * g.group_size + static_cast<int>(row % g.group_size)};
    }

    // Adds the block to the span if some row sees something of it.
    static void add_block(const AttentionGeometry& g, const AttentionInputs& in, const Tile& t, const Scratch& m,
                          int64_t block, Span& span) {
        const AttentionShape& s = g.shape;
        const int b = span.masks.n_blocks;
        const float* mask = nullptr;  // the token's mask, which its heads share where they do not differ
        int64_t last_token = -1;
        uint32_t live = 0;
        for (int i = 0; i < t.n_rows; ++i) {
            const auto [token, head] = row_of_tile(g, t, i);
            if (token != last_token || s.max_bias > 0) {
                const uint16_t* half =
                    in.mask ? at_byte(in.mask, t.stream * in.mask_stream_stride + token * in.mask_token_stride)
                            : nullptr;
                const float slope = alibi_slope(s.max_bias, s.n_head, head);
                mask = Masks<Ops>::load(half, slope, block * kBlockCells, cells_of_token(s, t.lengths, token),
                                        m.masks + kSpanCells * i + kBlockCells * b);
                last_token = token;
            }
            live |= static_cast<uint32_t>(mask != kFullyMasked.logits) << i;
            span.masks.of_block[b][i] = mask;
        }
        if (!live) return;
        span.block[b] = block;
        span.live_in_block[b] = live;
        span.live |= live;
        ++span.masks.n_blocks;
    }

    // ---- running rows ---------------------------------------------------------------------------------------------

    static TQ_INLINE void reset(const RunningRows& rows, int n_rows) {
        for (int i = 0; i < kPaddedRows; ++i) {
            rows.max[i] = -kInfinity;
            rows.sum[i] = 0;
        }
        std::memset(rows.out, 0, sizeof(float) * rows.stride * n_rows);
    }

    static TQ_INLINE Partial row_of(const RunningRows& rows, int row) {
        return {rows.max + row, rows.sum + row, rows.out + rows.stride * row};
    }

    // (max, sum, out) of `part` into `total`, always in cell order.
    static TQ_INLINE void merge_partial(const Partial& part, const Partial& total, int head_dim_v) {
        if (*part.sum == 0) return;
        const float top = *part.max > *total.max ? *part.max : *total.max;
        const float keep = Soft::exp2(*total.max - top), take = Soft::exp2(*part.max - top);
        *total.sum = __builtin_fmaf(*total.sum, keep, *part.sum * take);
        *total.max = top;
        for (int d = 0; d < head_dim_v; d += 16) {
            const F taken = Ops::mul(Ops::load(part.out + d), Ops::set1(take));
            Ops::store(total.out + d, Ops::fma(Ops::load(total.out + d), Ops::set1(keep), taken));
        }
    }

    // The row's exact rows into `exact`.
    static void attend_exact(const AttentionGeometry& g, const AttentionInputs& in, char* workspace, int64_t stream,
                             int64_t token, int head, ExactSums& exact) {
        const AttentionShape& s = g.shape;
        const int head_kv = head / g.group_size;
        alignas(64) float converted[kMaxHeadDim];
        const float* q = query_row(g, in, stream, token, head, converted);
        ExactAttention<Ops>::attend(
            {q, s.head_dim_k, s.head_dim_v, int64_t{head_kv} * s.head_dim_k, int64_t{head_kv} * s.head_dim_v,
             s.softcap > 0 ? s.scale : s.scale * kLog2e, s.softcap, alibi_slope(s.max_bias, s.n_head, head) * kLog2e},
            *exact_list(g, workspace, stream * s.n_tokens + token), exact);
    }

    // Sinks, exact rows, normalization, inverse rotation.
    static void finish_row(const AttentionGeometry& g, const AttentionInputs& in, char* workspace, int64_t stream,
                           int64_t token, int head, const Partial& total) {
        const int n = g.shape.head_dim_v;
        void* target =
            at_byte(in.out, stream * in.out_stream_stride + token * in.out_token_stride + head * in.out_head_stride);
        alignas(64) float to_convert[kMaxHeadDim];
        float* out = in.out_type == FloatType::kF32 ? static_cast<float*>(target) : to_convert;
        float max = *total.max, sum = *total.sum, factor = 1, exact_factor = 0;
        ExactSums exact;
        if (g.shape.n_exact > 0) {
            attend_exact(g, in, workspace, stream, token, head, exact);
            const float top = max > exact.max ? max : exact.max;
            factor = Soft::exp2(max - top);
            exact_factor = Soft::exp2(exact.max - top);
            sum = __builtin_fmaf(sum, factor, exact.sum * exact_factor);
            max = top;
        }
        if (in.sinks) {
            const float sink = in.sinks[head] * kLog2e;
            const float top = max > sink ? max : sink, keep = Soft::exp2(max - top);
            factor *= keep;
            exact_factor *= keep;
            sum = __builtin_fmaf(sum, keep, Soft::exp2(sink - top));
            max = top;
        }
        factor = sum > 0 ? factor / sum : 0.0f;
        exact_factor = sum > 0 ? exact_factor / sum : 0.0f;
        const float logit_scale = query_at(g, workspace, row_index(g, stream, token, head))->logit_scale;
        if (logit_scale != logit_scale) {  // NaN in, NaN out
            factor = sum = logit_scale;
            exact_factor = 0;
        }
        alignas(64) float normalized[kMaxHeadDim];
        for (int d = 0; d < n; d += 16)
            Ops::store(normalized + d, Ops::mul(Ops::load(total.out + d), Ops::set1(factor)));
        in.v.codec->rotate_inverse(head / g.group_size, normalized, out);
        for (int d = 0; exact_factor != 0 && d < n; d += 16) {
            Ops::store(out + d, Ops::fma(Ops::load(exact.out + d), Ops::set1(exact_factor), Ops::load(out + d)));
        }
        if (in.out_type != FloatType::kF32) from_floats(to_convert, n, in.out_type, target);
        if (in.lse) {
            *at_byte(in.lse, stream * in.lse_stream_stride + token * in.lse_token_stride + head * in.lse_head_stride) =
                log_sum_exp(max, sum);
        }
    }

    static float* partial_at(const AttentionGeometry& g, char* workspace, int64_t row, int64_t super_chunk) {
        return reinterpret_cast<float*>(workspace + g.partial_offset) +
               static_cast<size_t>(row * g.n_super_chunks + super_chunk) * g.partial_floats;
    }

    // ---- items ----------------------------------------------------------------------------------------------------

    // The tile's queries, word by word for all rows.
    static void gather_queries(const AttentionGeometry& g, char* workspace, const Tile& t, const Scratch& m) {
        const int words = g.shape.head_dim_k / 4;
        for (int i = 0; i < t.n_rows; ++i) {
            const auto [token, head] = row_of_tile(g, t, i);
            const PreparedQuery* query = query_at(g, workspace, row_index(g, t.stream, token, head));
            const int n_segments = m.heads[i / t.rows_per_head].keys.tiles.segments.count;
            m.logit_scale[i] = query->logit_scale;
            for (int s = 0; s < n_segments; ++s) m.query_bias[kMaxTileRows * s + i] = query->bias[s];
            for (int w = 0; w < words; ++w) std::memcpy(m.query_words + kMaxTileRows * w + i, query->q + 4 * w, 4);
        }
    }

    static void make_head(const PackedTensor& tensor, int64_t stream, int64_t n_blocks, int head_dim, int head_kv,
                          int bias, const uint8_t* decoded, Head& head) {
        head.tiles = head_tiles<Ops>(tensor.codec->format(), head_dim, head_kv, bias);
        head.blocks = tensor.blocks(stream);
        head.n_blocks = n_blocks;
        head.decoded = decoded;
        for (int step = 0; step < head.tiles.n_steps; ++step)
            head.decoded_tiles[step] = static_cast<uint32_t>(kTileValues * step);
        head.next = head.back = 0;
        head.blocks_ahead = kPrefetchBlocks;
    }

    // Heads of a tile are read one after another, span by span.
    static void link_heads(const Tile& t, Head HeadOfTile::*side, HeadOfTile* heads) {
        if (t.n_heads == 1) return;
        const auto offset = [&](int i) { return static_cast<ptrdiff_t>((heads[i].*side).tiles.tiles[0]); };
        for (int i = 0; i < t.n_heads; ++i) {
            Head& head = heads[i].*side;
            const bool last = i + 1 == t.n_heads;
            head.next = last ? 0 : offset(i + 1) - offset(i);
            head.back = last ? offset(i) - offset(0) : 0;
            head.blocks_ahead = kSpanBlocks;
        }
    }

    static void make_heads(const AttentionGeometry& g, const AttentionInputs& in, const Tile& t, const Scratch& m) {
        const AttentionShape& s = g.shape;
        const int64_t n_blocks = blocks_of_cells(t.cells.end);  // nothing behind them is fetched
        for (int i = 0; i < t.n_heads; ++i) {
            HeadOfTile& head = m.heads[i];
            make_head(in.k, in.k_first_stream + t.stream, n_blocks, s.head_dim_k, t.head_kv + i, Ops::kKeyBias,
                      m.key_tiles, head.keys);
            make_head(in.v, in.v_first_stream + t.stream, n_blocks, s.head_dim_v, t.head_kv + i, 0, m.value_tiles,
                      head.values);
            head.loaded_centers = -1;
            if (!g.keys_centered) continue;
            head.centers = centers_of_head(in.k.codec->format(), head.keys.blocks, t.cells.first / kBlockCells,
                                           n_blocks, s.head_dim_k, t.head_kv + i);
            prefetch_centers(head.centers, super_chunk_begin(t.first_super_chunk) / kBlockCells / kCenterRun);
        }
        link_heads(t, &HeadOfTile::keys, m.heads);
        link_heads(t, &HeadOfTile::values, m.heads);
    }

    static void attend(const AttentionGeometry& g, int64_t item, int thread, const AttentionInputs& in,
                       char* workspace) {
        const Tile t = tile_of_item(g, in, item);
        if (t.rows_per_head <= 0) return;
        const Scratch m(g, workspace + g.scratch_offset + static_cast<size_t>(thread) * g.scratch_bytes);
        if (!g.split()) reset(m.total, t.n_rows);
        if (t.first_super_chunk < t.end_super_chunk) {
            make_heads(g, in, t, m);
            gather_queries(g, workspace, t, m);
            for (int64_t i = t.first_super_chunk; i < t.end_super_chunk; ++i) {
                const RunningRows& rows = attend_super_chunk(g, in, t, m, i);
                for (int row = 0; row < t.n_rows; ++row) end_super_chunk(g, workspace, t, m, i, row, row_of(rows, row));
            }
        }
        if (!g.split()) finish_tile(g, in, workspace, t, m);
    }

    // Returns what holds the super-chunk's result. Chunks that no row may see are left out: they would change nothing.
    static const RunningRows& attend_super_chunk(const AttentionGeometry& g, const AttentionInputs& in, const Tile& t,
                                                 const Scratch& m, int64_t index) {
        const int64_t begin = super_chunk_begin(index) / kChunkCells, end = super_chunk_begin(index + 1) / kChunkCells;
        if (end - begin == 1) {
            attend_chunk(g, in, t, m, begin);
            return m.chunk;
        }
        reset(m.super_chunk, t.n_rows);
        const int64_t last = smaller(end - 1, (t.cells.end - 1) / kChunkCells);
        for (int64_t chunk = larger(begin, t.cells.first / kChunkCells); chunk <= last; ++chunk) {
            attend_chunk(g, in, t, m, chunk);
            for (int i = 0; i < t.n_rows; ++i)
                merge_partial(row_of(m.chunk, i), row_of(m.super_chunk, i), g.shape.head_dim_v);
        }
        return m.super_chunk;
    }

    static void attend_chunk(const AttentionGeometry& g, const AttentionInputs& in, const Tile& t, const Scratch& m,
                             int64_t chunk) {
        reset(m.chunk, t.n_rows);
        const int64_t end = smaller(blocks_of_cells(t.cells.end), (chunk + 1) * kChunkBlocks);
        const int64_t first_block = t.cells.first / kBlockCells;
        for (int64_t first = chunk * kChunkBlocks; first < end; first += kSpanBlocks) {
            Span span;
            span.masks.n_blocks = 0;
            span.live = 0;
            for (int64_t block = larger(first, first_block); block < smaller(end, first + kSpanBlocks); ++block)
                add_block(g, in, t, m, block, span);
            for (int head = 0; head < t.n_heads; ++head) {
                if (span.live & t.rows_of_head(head)) attend_span(g, t, head, m, span);
            }
        }
    }

    static TQ_INLINE void end_super_chunk(const AttentionGeometry& g, char* workspace, const Tile& t, const Scratch& m,
                                          int64_t super_chunk, int i, const Partial& part) {
        if (!g.split()) {
            merge_partial(part, row_of(m.total, i), g.shape.head_dim_v);
            return;
        }
        const auto [token, head] = row_of_tile(g, t, i);
        const Partial target = partial_in(partial_at(g, workspace, row_index(g, t.stream, token, head), super_chunk));
        *target.max = *part.max;
        *target.sum = *part.sum;
        std::memcpy(target.out, part.out, sizeof(float) * g.shape.head_dim_v);
    }

    static void finish_tile(const AttentionGeometry& g, const AttentionInputs& in, char* workspace, const Tile& t,
                            const Scratch& m) {
        for (int i = 0; i < t.n_rows; ++i) {
            const auto [token, head] = row_of_tile(g, t, i);
            finish_row(g, in, workspace, t.stream, token, head, row_of(m.total, i));
        }
    }

    // item: a (stream, token, head) row.
    static void merge(const AttentionGeometry& g, int64_t item, const AttentionInputs& in, char* workspace) {
        const AttentionShape& s = g.shape;
        const int64_t stream = item / s.n_head / s.n_tokens, token = item / s.n_head % s.n_tokens;
        const StreamLengths lengths = lengths_of_stream(s, in, stream);
        if (token >= lengths.n_tokens) return;
        const CellRange cells = cells_of_token(s, lengths, token);
        alignas(64) float memory[16 + kMaxHeadDim];
        const Partial total = partial_in(memory);
        *total.max = -kInfinity;
        *total.sum = 0;
        std::memset(total.out, 0, sizeof(float) * s.head_dim_v);
        // Of others the row's tile may not have made partials.
        const int64_t end = cells.empty() ? 0 : n_super_chunks(cells.end);
        for (int64_t i = super_chunk_of(cells.first); i < end; ++i)
            merge_partial(partial_in(partial_at(g, workspace, item, i)), total, s.head_dim_v);
        finish_row(g, in, workspace, stream, token, static_cast<int>(item % s.n_head), total);
    }
};

template <class Ops>
constexpr AttentionKernels make_kernels() {
    using K = Kernels<Ops>;
    return {K::query_bytes, K::scratch_bytes, K::prepare, K::attend, K::merge};
}

}  // namespace tq::attention_impl
