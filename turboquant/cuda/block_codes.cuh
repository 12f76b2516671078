// A block's codes and scales, as plain bytes in shared memory, out of a record and into one. All threads of a block call
// these together.
#pragma once

#include "turboquant/cuda/lane_words.cuh"

namespace tq::cuda {

// Dims [first, first + n) of a row, whole units; and the groups that they are.
struct Dims {
    int first, n;
};

// One of the bytes' rows: [64 cells][dims.n] codes, and [groups][64] scales in the record's own order.
struct PlainCodes {
    uint8_t* codes;
    uint8_t* scales;
};

// Calls fn(codes of the head, unit of the head, lane, first of the unit's dims among these dims) for a thread's share.
template <class Fn>
__device__ void for_units(const RecordOrder& order, const Dims& dims, Fn fn) {
    for (int i = threadIdx.x; i < dims.n / kStepDims * kLanes; i += blockDim.x) {
        const int unit = i / kLanes, dim = dims.first + unit * kStepDims, head = dim / order.head_dim;
        fn(order.codes_offset(head), (dim - head * order.head_dim) / kStepDims, i % kLanes, unit * kStepDims);
    }
}

// Calls fn(byte in the record, byte of the plain scales).
template <class Fn>
__device__ void for_scales(const RecordOrder& order, const Dims& dims, Fn fn) {
    const int width = group_dims(order.side), n_groups = (dims.n + width - 1) / width;
    for (int i = threadIdx.x; i < n_groups * kBlockCells; i += blockDim.x)
        fn(order.scales_offset(dims.first / width + i / kBlockCells) + i % kBlockCells, i);
}

__device__ __noinline__ static void unpack_codes(const RecordOrder& order, const Dims& dims, const uint8_t* record,
                                                 const PlainCodes& plain) {
    with_coding(order, [&]<Side kSide, int kBits>() {
        for_units(order, dims, [&](int codes, int unit, int lane, int first) {
            LaneWords<kBits> words;
            words.load(record + codes, order.n_units() * kBits, unit, lane);
            words.template for_codes<kSide>(lane, [&](int cell, int dim, uint32_t code) {
                plain.codes[cell * dims.n + first + dim] = static_cast<uint8_t>(code);
            });
        });
    });
    for_scales(order, dims, [&](int at, int i) { plain.scales[i] = record[at]; });
}

__device__ __noinline__ static void pack_codes(const RecordOrder& order, const Dims& dims, const PlainCodes& plain,
                                               uint8_t* record) {
    with_coding(order, [&]<Side kSide, int kBits>() {
        for_units(order, dims, [&](int codes, int unit, int lane, int first) {
            LaneWords<kBits> words;
            words.template from_codes<kSide>(
                lane, [&](int cell, int dim) -> uint32_t { return plain.codes[cell * dims.n + first + dim]; });
            words.store(record + codes, order.n_units() * kBits, unit, lane);
        });
    });
    for_scales(order, dims, [&](int at, int i) { record[at] = plain.scales[i]; });
}

}  // namespace tq::cuda
