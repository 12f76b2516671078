// What one thread block is to do: a tile of query rows of a KV head, against some segments of the cells that they see.
#pragma once

#include "turboquant/attention/cell_range.h"
#include "turboquant/cuda/attend_call.h"
#include "turboquant/cuda/segments.h"

namespace tq::cuda {

// grid: (KV heads and tiles, runs of blocks, streams); heads run fastest, since theirs of a block lie side by side.
// Numbers are ints: 64-bit divisions would take longer than a block of cells.
struct TileWork {
    int head_kv, tile, stream;
    StreamLengths lengths;
    CellRange cells;                         // that any row of the tile sees
    int first_segment = 0, end_segment = 1;  // that have them; one, if there are none
    int begin_segment, stop_segment;         // this thread block's: those that begin in its run of blocks
    int begin = 0, end = 0;                  // blocks of these
    bool idle;

    __device__ explicit TileWork(const AttendCall& call) {
        const auto n_head_kv = static_cast<unsigned>(call.shape.n_head_kv);
        tile = static_cast<int>(blockIdx.x / n_head_kv);
        head_kv = static_cast<int>(blockIdx.x - static_cast<unsigned>(tile) * n_head_kv);
        stream = static_cast<int>(blockIdx.z);
        const AttentionInputs& in = call.in;
        lengths = {in.n_kv_of_stream ? in.n_kv_of_stream[stream] : call.shape.n_kv,
                   in.n_tokens_of_stream ? in.n_tokens_of_stream[stream] : call.shape.n_tokens};
        const int n_rows = static_cast<int>(lengths.n_tokens) * call.group_size, first_row = tile * call.tile_rows;
        idle = first_row >= n_rows;
        if (idle) return;
        const int last_row = smaller(first_row + call.tile_rows, n_rows) - 1;
        cells = cells_of_tokens(call.shape, lengths, token_of(call, first_row), token_of(call, last_row));
        const int first_block = static_cast<int>(cells.first / kBlockCells),
                  end_block = static_cast<int>((cells.end + kBlockCells - 1) / kBlockCells);
        if (!cells.empty()) {
            first_segment = call.segments.of_block(first_block);
            end_segment = call.segments.of_block(end_block - 1) + 1;
        }
        const int run = static_cast<int>(blockIdx.y) * call.run_blocks;
        begin_segment = larger(first_segment, run == 0 ? 0 : call.segments.of_block(run - 1) + 1);
        stop_segment = smaller(end_segment, call.segments.of_block(run + call.run_blocks - 1) + 1);
        idle = begin_segment >= stop_segment;
        if (idle || cells.empty()) return;
        begin = larger(first_block, static_cast<int>(call.segments.first_block(begin_segment)));
        end = smaller(end_block, static_cast<int>(call.segments.first_block(stop_segment)));
    }

    static __device__ int token_of(const AttendCall& call, int row) {
        return static_cast<int>(static_cast<unsigned>(row) / static_cast<unsigned>(call.group_size));
    }
    // Thread blocks that share the tile. Each has a segment, since none is longer than a run.
    __device__ int n_runs(const AttendCall& call) const { return run_of(call, end_segment - 1) - run_of(call, first_segment) + 1; }
    static __device__ int run_of(const AttendCall& call, int segment) {
        return static_cast<int>(static_cast<unsigned>(call.segments.first_block(segment)) /
                                static_cast<unsigned>(call.run_blocks));
    }
    __device__ int64_t index(const AttendCall& call) const {
        return (int64_t{stream} * call.n_tiles + tile) * call.shape.n_head_kv + head_kv;
    }
};

// A row of the tile.
struct TileRow {
    bool valid;
    int token, head;
    CellRange cells;

    __device__ TileRow(const AttendCall& call, const TileWork& work, int row) {
        const int at = work.tile * call.tile_rows + row;
        token = TileWork::token_of(call, at);
        head = work.head_kv * call.group_size + at - token * call.group_size;
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
