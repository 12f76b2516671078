// Records into rows, and into plain codes and scales and back.
#include <string>

#include "turboquant/cuda/floats.cuh"
#include "turboquant/cuda/rows.cuh"
#include "turboquant/format/scale.h"

namespace tq::cuda {
namespace {

__host__ __device__ size_t plain_bytes(Side side, int dims) {
    return static_cast<size_t>(kBlockCells) * (dims + (dims + group_dims(side) - 1) / group_dims(side));
}

template <int kHeadDim>
__device__ void decode_row(const RowsCall& call, const RowsOfBlock& work, const PlainCodes& plain, int cell) {
    using Rotation = WarpRotation<kHeadDim>;
    const int lane = threadIdx.x % 32, width = group_dims(call.order.side);
    const Diagonals diagonals(call.diagonals, call.n_diagonal, kHeadDim);
    for (int first = 0; first < work.dims.n; first += kHeadDim) {
        typename Rotation::Values v;
        for (int k = 0; k < Rotation::kRegs; ++k) {
            const int dim = first + 32 * k + lane;
            v[k] = 0;
            if (!Rotation::has(k, lane)) continue;
            const uint8_t scale = plain.scales[dim / width * kBlockCells + scale_place(call.order.side, cell)];
            const int8_t level = call.tables->level[plain.codes[cell * work.dims.n + dim]];
            v[k] = scale_from_code(scale) * static_cast<float>(level);
        }
        const int head = (work.dims.first + first) / kHeadDim;
        if (!call.rotated) Rotation::rotate_inverse(Rotation::inverse_factors(diagonals, head, lane), lane, v);
        for (int k = 0; k < Rotation::kRegs; ++k)
            if (Rotation::has(k, lane))
                store_float(work.row_of(call, cell), call.rows.type, work.dims.first + first + 32 * k + lane, v[k]);
    }
}

template <int kHeadDim>
__global__ void __launch_bounds__(kRowThreads) decode_rows(const RowsCall call) {
    extern __shared__ uint8_t shared[];
    const RowsOfBlock work(call);
    if (work.empty()) return;
    const PlainCodes plain{shared, shared + kBlockCells * call.slice_dims};
    unpack_codes(call.order, work.dims, work.record, plain);
    __syncthreads();
    for (int cell = work.begin + static_cast<int>(threadIdx.x / 32); cell < work.end; cell += kRowWarps)
        decode_row<kHeadDim>(call, work, plain, cell);
}

// A block of a head's codes and of the groups' scales. grid: (heads, blocks)
struct PlainWork {
    Dims dims;
    uint8_t* record;
    uint8_t *codes, *scales;  // of the block's first cell
    int n_embd, n_groups;

    __device__ explicit PlainWork(const PlainCall& call) {
        const int64_t block = blockIdx.y;
        n_embd = call.order.n_head * call.order.head_dim;
        n_groups = call.order.n_groups();
        dims = {static_cast<int>(blockIdx.x) * call.order.head_dim, call.order.head_dim};
        record = call.records.records +
                 (call.records.block_table ? int64_t{call.records.block_table[block]} : block) * call.block_bytes;
        codes = call.codes + block * kBlockCells * n_embd;
        scales = call.scales + block * kBlockCells * n_groups;
    }
    // Calls fn(byte in the record, byte of `scales`) for this head's share of all groups.
    template <class Fn>
    __device__ void for_scales(const RecordOrder& order, Fn fn) const {
        for (int group = blockIdx.x; group < n_groups; group += gridDim.x)
            for (int cell = threadIdx.x; cell < kBlockCells; cell += blockDim.x)
                fn(order.scales_offset(group) + scale_place(order.side, cell), cell * n_groups + group);
    }
};

__global__ void __launch_bounds__(kRowThreads) unpack_records(const PlainCall call) {
    const PlainWork work(call);
    with_coding(call.order, [&]<Side kSide, int kBits>() {
        for_units(call.order, work.dims, [&](int codes, int unit, int lane, int first) {
            LaneWords<kBits> words;
            words.load(work.record + codes, call.order.n_units() * kBits, unit, lane);
            words.template for_codes<kSide>(lane, [&](int cell, int dim, uint32_t code) {
                work.codes[cell * work.n_embd + work.dims.first + first + dim] = static_cast<uint8_t>(code);
            });
        });
    });
    work.for_scales(call.order, [&](int at, int i) { work.scales[i] = work.record[at]; });
}

__global__ void __launch_bounds__(kRowThreads) pack_records(const PlainCall call) {
    const PlainWork work(call);
    with_coding(call.order, [&]<Side kSide, int kBits>() {
        for_units(call.order, work.dims, [&](int codes, int unit, int lane, int first) {
            LaneWords<kBits> words;
            words.template from_codes<kSide>(lane, [&](int cell, int dim) -> uint32_t {
                return work.codes[cell * work.n_embd + work.dims.first + first + dim];
            });
            words.store(work.record + codes, call.order.n_units() * kBits, unit, lane);
        });
    });
    work.for_scales(call.order, [&](int at, int i) { work.record[at] = work.scales[i]; });
}

dim3 grid_of(const PlainCall& call) {
    return {static_cast<unsigned>(call.order.n_head), static_cast<unsigned>(call.n_blocks)};
}

}  // namespace

Status launch_decode(const RowsCall& call, cudaStream_t stream) {
    return with_head_dim(call.order.head_dim, [&]<int kHeadDim>() {
        const size_t bytes = plain_bytes(call.order.side, call.slice_dims);
        decode_rows<kHeadDim><<<grid_of(call), kRowThreads, bytes, stream>>>(call);
        return status_of(cudaGetLastError(), "decoding rows");
    });
}

Status launch_unpack(const PlainCall& call, cudaStream_t stream) {
    unpack_records<<<grid_of(call), kRowThreads, 0, stream>>>(call);
    return status_of(cudaGetLastError(), "unpacking records");
}

Status launch_pack(const PlainCall& call, cudaStream_t stream) {
    pack_records<<<grid_of(call), kRowThreads, 0, stream>>>(call);
    return status_of(cudaGetLastError(), "packing records");
}

}  // namespace tq::cuda
