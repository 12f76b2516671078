// New rows into records: rotated, their groups' scales searched, their codes put into tiles. Keys may be coded around a
// center of their block, which is chosen here as cpu/codec/centers.cpp does it.
//
// A threadgroup has a slice of a stream's rows. Its SIMD groups encode a cell each; then all of them put the codes of
// these cells into the words of the record, which cells of a block share.
#include "turboquant/metal/append_shape.h"
#include "turboquant/metal/center_choice.h"
#include "turboquant/metal/elements.h"
#include "turboquant/metal/encode.h"
#include "turboquant/metal/encode_trellis.h"
#include "turboquant/metal/record_view.h"
#include "turboquant/metal/rotation.h"
#include "turboquant/metal/rows.h"

namespace tq {

// The slice of one record, and what a threadgroup needs to encode cells of it.
struct SliceWriter {
    Side side;
    int codes_are, row_steps;  // codes_are: as code_levels.h numbers codes
    int first_dim, n_dims;
    int simd_groups;
    threadgroup float* values;  // [SIMD group][n_dims]: of a cell, then
    threadgroup uchar* codes;   // [SIMD group][n_dims]
    threadgroup uchar* scales;  // [SIMD group][groups]

    int groups() const { return (n_dims + group_dims(side) - 1) / group_dims(side); }

    // The cell's values, which its SIMD group has written, into codes.
    template <class AnyEncoder>
    void encode(thread const AnyEncoder& encoder, uint simd, uint lane) const {
        simdgroup_barrier(metal::mem_flags::mem_threadgroup);
        for (int g = 0; g < groups(); ++g) {
            const int begin = g * group_dims(side), rest = n_dims - begin, at = int(simd) * n_dims + begin;
            const int code =
                encoder.encode(values + at, rest < group_dims(side) ? rest : group_dims(side), codes + at, lane);
            if (lane == 0) scales[int(simd) * groups() + g] = uchar(code);
        }
    }

    // Cells [cell, cell + n), of which the SIMD groups have the codes. All threads of the threadgroup.
    void store(device uchar* record, int cell, int n, uint simd, uint lane) const {
        const int thread_index = int(simd * 32 + lane), threads = 32 * simd_groups, first_step = first_dim / kStepDims;
        const int first_group = first_dim / group_dims(side);
        for (int i = thread_index; i < n * groups(); i += threads) {
            const int g = first_group + i % groups();
            record[offset_of_scales<uint>(side, bits_of(codes_are), uint(g), uint(row_steps)) + uint(cell + i / groups())] =
                scales[i / groups() * groups() + i % groups()];
        }
        // A byte of a tile belongs to one thread: of keys to that of dim % 4 and the planes' lane, which follows from the
        // cell, of values to that of the dim.
        const int lanes = side == Side::kKey ? 4 : kStepDims;
        for (int i = thread_index; i < n_dims / kStepDims * lanes; i += threads) {
            const int step = i / lanes;
            device uchar* tile = record + offset_of_tile<uint>(side, bits_of(codes_are), uint(first_step + step));
            for (int c = 0; c < n; ++c) {
                threadgroup const uchar* of_step = codes + c * n_dims + step * kStepDims;
                if (side == Side::kValue) {
                    put(tile, place_of_code(side, i % lanes, cell + c), of_step[i % lanes]);
                    continue;
                }
                for (int quad = 0; quad < 4; ++quad)
                    put(tile, place_of_code(side, 4 * quad + i % lanes, cell + c), of_step[4 * quad + i % lanes]);
            }
        }
    }

  private:
    void put(device uchar* tile, CodePlace place, int code) const {
        if (codes_are == kTrellisFlag + 4) {
            device uchar* byte = tile + place.byte_of(4, 0);
            int value = *byte;
            for (int bit = 0; bit < 4; ++bit) {
                const int at = place_of_trellis4_bit(bit, place.unit);
                value = (value & ~(1 << at)) | (code >> bit & 1) << at;
            }
            *byte = uchar(value);
            return;
        }
        int first = 0;
        for (int width = 8; width > 0; width /= 2) {
            if ((bits_of(codes_are) & width) == 0) continue;
            device uchar* byte = tile + place.byte_of(width, first);
            const int shift = place.shift_of(width), mask = (1 << width) - 1;
            *byte = uchar((*byte & ~(mask << shift)) | ((code >> first & mask) << shift));
            first += width;
        }
    }
};

// The center's codes, which SIMD group 0 has made of its values, and scales: 0 would say that none is chosen, and 1 is
// next to nothing.
inline void write_center(device uchar* center, thread const SliceWriter& writer, int thread_index, int threads) {
    device uchar* center_scales = center + writer.row_steps * kStepDims * kCenterBits / 8;
    for (int i = thread_index; i < writer.n_dims / 2; i += threads) {
        const int low = i / 4 * 8 + i % 4;
        center[writer.first_dim / 2 + i] = uchar(writer.codes[low] | writer.codes[low + 4] << kCenterBits);
    }
    for (int g = thread_index; g < writer.groups(); g += threads)
        center_scales[writer.first_dim / group_dims(Side::kKey) + g] = metal::max(writer.scales[g], uchar(1));
}

// What is smaller than half the smallest half counts as 0, NaN too; what no half can hold is clamped.
inline float storable(float x) {
    const float large = metal::fabs(x) >= kNegligible ? x : 0.0f;
    return greater_of(less_of(large, kLargestHalf), -kLargestHalf);
}

// One cell's slice, rotated, less the center: into the SIMD group's values. row: elements to the slice's first head.
template <int head_dim>
inline void rotate_slice(constant RowsParams& p, device const uchar* rows, int64_t row, device const float* rotation,
                         threadgroup const float* center, bool centered, int n_dims, threadgroup float* values,
                         uint lane) {
    for (int head = 0; head * head_dim < n_dims; ++head) {
        float x[registers_of(head_dim)];
#pragma unroll
        for (int k = 0; k < registers_of(head_dim); ++k) {
            const bool has = Rotation<head_dim>::has(k, lane);
            x[k] = has ? storable(load_element(rows, row + head * p.rows.head + 32 * k + int(lane), p.type)) : 0.0f;
        }
        Rotation<head_dim>::apply(x, rotation + head * p.rotation_stride, kRotationFirst, lane);
#pragma unroll
        for (int k = 0; k < registers_of(head_dim); ++k) {
            if (!Rotation<head_dim>::has(k, lane)) continue;
            const int dim = head * head_dim + 32 * k + int(lane);
            values[dim] = centered ? x[k] - center[dim] : x[k];
        }
    }
}

// The encoder of a kind of codes, from the memory that either kind needs.
template <bool trellis>
struct EncoderOf;
template <>
struct EncoderOf<false> {
    using Type = Encoder;
    static Encoder make(int bits, bool unbiased, threadgroup uchar* levels, threadgroup uchar* codes,
                        threadgroup float* errors, threadgroup uchar*, threadgroup uchar*) {
        Encoder encoder;
        encoder.bits = bits;
        encoder.unbiased = unbiased;
        encoder.level = levels;
        encoder.code = codes;
        encoder.errors = errors;
        return encoder;
    }
};
template <>
struct EncoderOf<true> {
    using Type = TrellisEncoder;
    static TrellisEncoder make(int bits, bool, threadgroup uchar* levels, threadgroup uchar* inner,
                               threadgroup float* errors, threadgroup uchar* last_state, threadgroup uchar* from_high) {
        TrellisEncoder encoder;
        encoder.bits = bits;
        encoder.level = reinterpret_cast<threadgroup char*>(levels);
        encoder.inner = inner;
        encoder.errors = errors;
        encoder.last_state = last_state;
        encoder.from_high = from_high;
        return encoder;
    }
};

// Grid (slices, blocks, streams), of centered keys one of y, as a block's center follows from the block before;
// append_simd_groups() SIMD groups. side: 0 keys, 1 values.
template <int head_dim, int codes_are, int side, int centered>
[[kernel]] void append(constant RowsParams& p [[buffer(kBufferParams)]],
                       device const int* lengths [[buffer(kBufferLengths)]],
                       device const uchar* rows [[buffer(kBufferRows)]],
                       device uchar* records [[buffer(kBufferRecords)]],
                       device const int* table [[buffer(kBufferTable)]],
                       device const float* rotation [[buffer(kBufferRotation)]],
                       uint3 group [[threadgroup_position_in_grid]], uint simd [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
    constexpr int bits = bits_of(codes_are);
    constexpr bool trellis = is_trellis_of(codes_are);
    constexpr Side kSide = side == 0 ? Side::kKey : Side::kValue;
    constexpr int slice_dims = dims_of_slice(kSide, head_dim), simd_groups = append_simd_groups(slice_dims);
    constexpr int threads = 32 * simd_groups, slice_groups = slice_dims / group_dims(kSide);
    threadgroup float values[simd_groups * slice_dims];
    threadgroup uchar codes[simd_groups * slice_dims];
    threadgroup uchar scales[simd_groups * slice_groups];
    threadgroup float errors[simd_groups * kMaxCandidates];
    threadgroup uchar levels[trellis ? 4 * 128 : 128];
    threadgroup uchar codes_of_levels[trellis ? 4 * 128 : 128];
    threadgroup uchar last_state[trellis ? simd_groups * kMaxCandidates : 1];
    threadgroup uchar from_high[trellis ? simd_groups * kMaxChain * kMaxCandidates : 1];
    threadgroup uchar center_levels_of[centered != 0 ? 128 : 1];
    threadgroup uchar center_codes_of[centered != 0 ? 128 : 1];
    threadgroup float center[centered != 0 ? slice_dims : 1];
    threadgroup float moved[centered != 0 ? slice_dims : 1];  // what the center has changed by, negated
    threadgroup uchar live[centered != 0 ? kBlockCells : 2];
    threadgroup int changed[centered != 0 ? simd_groups : 1];

    const int stream = int(group.z), thread_index = int(simd * 32 + lane);
    const int64_t first = lengths[2 * stream], n = lengths[2 * stream + 1];
    if (n <= 0) return;
    const int64_t last_block = (first + n - 1) / kBlockCells;
    int64_t block = first / kBlockCells + (centered != 0 ? 0 : int64_t(group.y));
    if (block > last_block) return;

    SliceWriter writer;
    writer.side = kSide;
    writer.codes_are = codes_are;
    writer.row_steps = p.n_head_kv * (head_dim / kStepDims);
    writer.first_dim = int(group.x) * slice_dims;
    writer.n_dims = metal::min(slice_dims, writer.row_steps * kStepDims - writer.first_dim);
    writer.simd_groups = simd_groups;
    writer.values = values;
    writer.codes = codes;
    writer.scales = scales;
    threadgroup float* own_errors = errors + simd * kMaxCandidates;
    const uint of_trellis = trellis ? simd : 0;  // without trellis codes these arrays have one element
    const typename EncoderOf<trellis>::Type encoder = EncoderOf<trellis>::make(
        bits, kSide == Side::kKey && bits == 2, levels, codes_of_levels, own_errors,
        last_state + of_trellis * kMaxCandidates, from_high + of_trellis * kMaxChain * kMaxCandidates);
    const Encoder of_center =
        EncoderOf<false>::make(kCenterBits, false, center_levels_of, center_codes_of, own_errors, last_state, from_high);
    for (int i = thread_index; i < 128; i += threads) {
        encoder.fill(i);
        if (centered != 0) of_center.fill(i);
    }
    const int first_head = writer.first_dim / head_dim;
    device const float* slice_rotation = rotation + first_head * p.rotation_stride;
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    // Threads read of a record what others have written.
    const metal::mem_flags everything = metal::mem_flags::mem_threadgroup | metal::mem_flags::mem_device;
    for (; block <= last_block; ++block) {
        const int64_t index = stream * p.stream_blocks + block;
        device uchar* record = records + (p.has_table != 0 ? int64_t(table[index]) : index) * p.record_bytes;
        const int begin = int(metal::max(first - block * kBlockCells, int64_t(0)));
        const int end = int(metal::min(first + n - block * kBlockCells, int64_t(kBlockCells)));
        const int first_centered = centered == 0 ? kBlockCells : block == 0 ? kUncenteredCells : 0;
        for (int cell = begin; cell < end;) {
            const bool has_center = cell >= first_centered;
            if (has_center && (cell == begin || cell == first_centered)) {
                CenteredRecord own;
                own.bytes = record;
                own.codes = codes_are;
                own.row_steps = writer.row_steps;
                const bool chosen = own.center_scales()[writer.first_dim / group_dims(kSide)] != 0;
                if (cell == first_centered || !chosen) {
                    const int64_t source = block == 0 ? index : index - 1;
                    CenteredRecord from = own;
                    from.bytes = records + (p.has_table != 0 ? int64_t(table[source]) : source) * p.record_bytes;
                    for (int i = thread_index; i < kBlockCells; i += threads)
                        live[i] = uchar(from.is_live(writer.first_dim, writer.n_dims, i) ? 1 : 0);
                    threadgroup_barrier(everything);
                    for (int i = thread_index; i < writer.n_dims; i += threads) {
                        const int dim = writer.first_dim + i, group_begin = dim / group_dims(kSide) * group_dims(kSide);
                        const int group_rest = writer.row_steps * kStepDims - group_begin;
                        values[i] = block > 0 ? mean_of_dim(from, block - 1, dim, live)
                                    : live[1] != 0
                                        ? estimate_of_dim(from, dim, group_begin, metal::min(group_rest, group_dims(kSide)))
                                        : 0.0f;
                        moved[i] = own.center(dim);
                    }
                    threadgroup_barrier(everything);
                    if (simd == 0) writer.encode(of_center, simd, lane);
                    threadgroup_barrier(everything);
                    write_center(record + offset_of_center(bits, writer.row_steps), writer, thread_index, threads);
                    threadgroup_barrier(everything);
                    bool differs = false;
                    for (int i = thread_index; i < writer.n_dims; i += threads) {
                        const float now = own.center(writer.first_dim + i);
                        differs = differs || bits_of_float(now) != bits_of_float(moved[i]);
                        moved[i] -= now;
                    }
                    for (int i = thread_index; i < kBlockCells; i += threads) {
                        const bool kept = (i < begin || i >= end) && i >= first_centered;
                        live[i] = uchar(kept && own.is_live(writer.first_dim, writer.n_dims, i) ? 1 : 0);
                    }
                    const bool any = metal::simd_any(differs);
                    if (lane == 0) changed[simd] = any ? 1 : 0;
                    threadgroup_barrier(everything);
                    bool moves = false;
                    for (int i = 0; i < simd_groups; ++i) moves = moves || changed[i] != 0;
                    for (int i = 0; moves && i < kBlockCells; ++i) {
                        if (live[i] == 0) continue;
                        if (simd == 0) {
                            for (int d = int(lane); d < writer.n_dims; d += 32)
                                values[d] = own.difference(writer.first_dim + d, i) + moved[d];
                            writer.encode(encoder, simd, lane);
                        }
                        threadgroup_barrier(everything);
                        writer.store(record, i, 1, simd, lane);
                        threadgroup_barrier(everything);
                    }
                }
                for (int i = thread_index; i < writer.n_dims; i += threads) center[i] = own.center(writer.first_dim + i);
                threadgroup_barrier(everything);
            }
            const int limit = !has_center && first_centered < end ? first_centered : end;
            const int count = metal::min(limit - cell, simd_groups);
            if (int(simd) < count) {
                const int64_t token = block * kBlockCells + cell + int(simd) - first;
                rotate_slice<head_dim>(p, rows, stream * p.rows.stream + token * p.rows.token + first_head * p.rows.head,
                                       slice_rotation, center, has_center, writer.n_dims,
                                       values + int(simd) * writer.n_dims, lane);
                writer.encode(encoder, simd, lane);
            }
            threadgroup_barrier(everything);
            writer.store(record, cell, count, simd, lane);
            threadgroup_barrier(everything);
            cell += count;
        }
        if (centered == 0) return;
    }
}

}  // namespace tq
