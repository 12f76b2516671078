// What one thread block is to do: a tile of query rows of a KV head, against one segment of the cells that they see.
#pragma once

#include "turboquant/attention/cell_range.h"
#include "turboquant/cuda/attend_call.h"
#include "turboquant/cuda/segments.h"

namespace tq::cuda {

// grid: (KV heads and tiles, segments, streams); heads run fastest, since theirs of a block lie side by side.
struct TileWork {
    int head_kv, tile, segment, stream;
    StreamLengths lengths;
    CellRange cells;          // that any row of the tile sees
    int first_segment = 0;    // segments that have them
    int n_segments = 1;       // one, if there are none
    int64_t begin, end;       // blocks of this segment
    bool idle;

    __device__ explicit TileWork(const AttendCall& call) {
        tile = static_cast<int>(blockIdx.x) / call.shape.n_head_kv;
        head_kv = static_cast<int>(blockIdx.x) - tile * call.shape.n_head_kv;
        segment = static_cast<int>(blockIdx.y);
        stream = static_cast<int>(blockIdx.z);
        const AttentionInputs& in = call.in;
        lengths = {in.n_kv_of_stream ? in.n_kv_of_stream[stream] : call.shape.n_kv,
                   in.n_tokens_of_stream ? in.n_tokens_of_stream[stream] : call.shape.n_tokens};
        const int64_t n_rows = lengths.n_tokens * call.group_size, first_row = int64_t{tile} * kTileRows;
        idle = first_row >= n_rows;
        if (idle) return;
        const int64_t last_row = smaller<int64_t>(first_row + kTileRows, n_rows) - 1;
        cells = cells_of_tokens(call.shape, lengths, first_row / call.group_size, last_row / call.group_size);
        begin = end = 0;
        if (!cells.empty()) {
            const int64_t first_block = cells.first / kBlockCells, last_block = (cells.end - 1) / kBlockCells;
            first_segment = segment_of_block(first_block);
            n_segments = segment_of_block(last_block) - first_segment + 1;
            begin = larger(first_block, first_block_of_segment(segment));
            end = smaller(last_block + 1, first_block_of_segment(segment + 1));
        }
        idle = segment < first_segment || segment >= first_segment + n_segments;
    }

    __device__ int64_t index(const AttendCall& call) const {
        return (int64_t{stream} * call.n_tiles + tile) * call.shape.n_head_kv + head_kv;
    }
};

// A row of the tile.
struct TileRow {
    bool valid;
    int64_t token;
    int head;
    CellRange cells;

    __device__ TileRow(const AttendCall& call, const TileWork& work, int row) {
        const int64_t at = int64_t{work.tile} * kTileRows + row;
        token = at / call.group_size;
        head = work.head_kv * call.group_size + static_cast<int>(at - token * call.group_size);
        valid = token < work.lengths.n_tokens;
        // A row that is not there sees what the tile sees, so that it makes no block a border.
        cells = valid ? cells_of_token(call.shape, work.lengths, token) : work.cells;
    }
    __device__ const void* query(const AttendCall& call, const TileWork& work) const {
        const AttentionInputs& in = call.in;
        return static_cast<const char*>(in.q) + token * in.q_token_stride + head * in.q_head_stride +
               work.stream * in.q_stream_stride;
    }
    __device__ void* out(const AttendCall& call, const TileWork& work) const {
        const AttentionInputs& in = call.in;
        return static_cast<char*>(in.out) + token * in.out_token_stride + head * in.out_head_stride +
               work.stream * in.out_stream_stride;
    }
    __device__ float* lse(const AttendCall& call, const TileWork& work) const {
        const AttentionInputs& in = call.in;
        return reinterpret_cast<float*>(reinterpret_cast<char*>(in.lse) + token * in.lse_token_stride +
                                        head * in.lse_head_stride + work.stream * in.lse_stream_stride);
    }
};

}  // namespace tq::cuda
