// What the kernels of whole rows share: a block of one slice of one stream, and its cells that a call is about.
#pragma once

#include "turboquant/cuda/block_codes.cuh"
#include "turboquant/cuda/codec_kernels.h"
#include "turboquant/cuda/warp_rotation.cuh"

namespace tq::cuda {

inline constexpr int kRowThreads = 256;
inline constexpr int kRowWarps = kRowThreads / 32;

// grid: (slices, blocks that the tokens of a stream may be in, streams)
struct RowsOfBlock {
    Dims dims;
    int64_t block;
    int begin, end;        // cells of the block
    int64_t first_token;   // the token of cell `begin`
    uint8_t* record;
    unsigned char* rows;   // of the stream

    __device__ explicit RowsOfBlock(const RowsCall& call) {
        const int64_t stream = blockIdx.z, n_embd = int64_t{call.order.n_head} * call.order.head_dim;
        const DeviceRows& r = call.rows;
        const int64_t first = r.first_cell_of_stream ? r.first_cell_of_stream[stream] : r.first_cell;
        const int64_t n = r.n_tokens_of_stream ? r.n_tokens_of_stream[stream] : r.n_tokens;
        dims.first = static_cast<int>(blockIdx.x) * call.slice_dims;
        dims.n = static_cast<int>(smaller<int64_t>(call.slice_dims, n_embd - dims.first));
        block = first / kBlockCells + blockIdx.y;
        const int64_t begin_cell = larger(first, block * kBlockCells);
        begin = static_cast<int>(begin_cell - block * kBlockCells);
        end = static_cast<int>(smaller<int64_t>(first + n - block * kBlockCells, kBlockCells));
        first_token = begin_cell - first;
        rows = static_cast<unsigned char*>(r.rows) + stream * r.stream_stride;
        record = nullptr;
        if (block >= call.records.blocks_of_stream) end = begin;  // lengths on the device are nobody's to check before
        if (empty()) return;
        const int64_t at = stream * call.records.blocks_of_stream + block;
        record = call.records.records +
                 (call.records.block_table ? int64_t{call.records.block_table[at]} : at) * call.block_bytes;
    }
    __device__ bool empty() const { return begin >= end; }
    __device__ void* row_of(const RowsCall& call, int cell) const {
        return rows + (first_token + cell - begin) * call.rows.token_stride;
    }
};

__host__ inline dim3 grid_of(const RowsCall& call) {
    const int64_t n_embd = int64_t{call.order.n_head} * call.order.head_dim;
    const int64_t slices = (n_embd + call.slice_dims - 1) / call.slice_dims;
    return {static_cast<unsigned>(slices), static_cast<unsigned>((call.rows.n_tokens + 2 * kBlockCells - 2) / kBlockCells),
            static_cast<unsigned>(call.rows.n_stream)};
}

// Launches kernel<head_dim> of those in this build, kernel being a functor with a template argument.
template <class Launch>
Status with_head_dim(int head_dim, Launch launch) {
    switch (head_dim) {
        case 64:
            return launch.template operator()<64>();
        case 80:
            return launch.template operator()<80>();
        case 96:
            return launch.template operator()<96>();
        case 112:
            return launch.template operator()<112>();
        case 128:
            return launch.template operator()<128>();
        case 256:
            return launch.template operator()<256>();
        default:
            return Status(Error::kUnsupported, "head_dim is " + std::to_string(head_dim) +
                                                   "; the CUDA engine has 64, 80, 96, 112, 128 and 256");
    }
}

}  // namespace tq::cuda
