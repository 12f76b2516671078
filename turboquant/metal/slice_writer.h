// Codes of cells, as SIMD groups have made them, into the tiles of a record.
#pragma once

#include "turboquant/metal/record_view.h"

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
            record[offset_of_scales<uint>(side, bits_of(codes_are), uint(g), uint(row_steps)) +
                   uint(cell + i / groups())] = scales[i / groups() * groups() + i % groups()];
        }
        // A byte of a tile belongs to one thread: of keys to that of dim % 4 and the planes' lane, which follows from
        // the cell, of values to that of the dim.
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

}  // namespace tq
