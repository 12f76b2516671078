// The kernel: a thread block of four warps attends with a tile of four query rows to a run of segments of the cells that
// they see. Warps take blocks of 64 cells in turn and meet at the end of each segment, while the next one's blocks are
// on their way. Where there are several segments, the thread block that ends last merges all of them.
#pragma once

#include "turboquant/cuda/block_ring.cuh"
#include "turboquant/cuda/block_sums.cuh"
#include "turboquant/cuda/merge.cuh"
#include "turboquant/cuda/query.cuh"

namespace tq::cuda {

// The cells that a lane's two rows see, and those that all rows of the tile do.
struct VisibleCells {
    int first[2], end[2];
    int first_of_all, end_of_all;

    __device__ VisibleCells(const AttendCall& call, const TileWork& work) {
        first_of_all = 0, end_of_all = static_cast<int>(work.cells.end);
#pragma unroll
        for (int row = 0; row < kTileRows; ++row) {
            const CellRange cells = TileRow(call, work, row).cells;
            first_of_all = larger(first_of_all, static_cast<int>(cells.first));
            end_of_all = smaller(end_of_all, static_cast<int>(cells.end));
            if (row / 2 != static_cast<int>(threadIdx.x) % 2) continue;
            first[row % 2] = static_cast<int>(cells.first);
            end[row % 2] = static_cast<int>(cells.end);
        }
    }
    __device__ bool all_of(int block) const {
        return block * kBlockCells >= first_of_all && (block + 1) * kBlockCells <= end_of_all;
    }
    __device__ void hide(int block, float (&logits)[kTiles][2]) const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            const int cell = block * kBlockCells + 16 * tile + 8 * (lane % 4 / 2) + lane / 4;
            for (int j = 0; j < 2; ++j)
                if (cell < first[j] || cell >= end[j]) logits[tile][j] = kMinusInfinity;
        }
    }
};

// Logits in units of the softcap become softcap * tanh(logit), in base 2; exact to 2^-22 of the softcap.
__device__ __forceinline__ void cap(float softcap, float (&logits)[kTiles][2]) {
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
        float& x = logits[i / 2][i % 2];
        x = softcap * kLog2E * (1 - __fdividef(2.0f, 1 + exp2_fast(2 * kLog2E * fminf(x, 40.0f))));
    }
}

// logits become weights: 2^64 exp2(logit - max). Returns whether a maximum grew, and what earlier sums are to be
// multiplied by.
__device__ __forceinline__ bool softmax_of_block(Softmax& state, float (&logits)[kTiles][2], float (&rescale)[2]) {
    bool grew = false;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        float top = fmaxf(fmaxf(logits[0][j], logits[1][j]), fmaxf(logits[2][j], logits[3][j]));
        top = fmaxf(max_of_cells(top), state.max[j]);
        rescale[j] = exp2_fast(state.max[j] - top);
        grew = grew || top > state.max[j];
        state.max[j] = top;
        state.sum[j] *= rescale[j];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            logits[tile][j] = exp2_fast(logits[tile][j] - top + 64);
            state.sum[j] += logits[tile][j];
        }
    }
    return __any_sync(kAllLanes, grew);
}

// A warp's state in a segment.
template <class Traits>
class WarpAttention {
  public:
    __device__ WarpAttention(const AttendCall& call, const TileWork& work, const int8_t* digits, const float* factors)
        : softcap_(call.shape.softcap),
          products_(digits, work.head_kv, {call.minus_one, call.byte_one}),
          visible_(call, work),
          factor_{factors[threadIdx.x % 2 * 2], factors[threadIdx.x % 2 * 2 + 1]},
          sums_(work.head_kv, {call.minus_one, call.byte_one}) {}

    __device__ void clear() {
        state_ = {};
        sums_.clear();
    }

    // Block i of the ring.
    __device__ __forceinline__ void attend(BlockRing<Traits>& ring, int i) {
        float dots[kTiles][4], logits[kTiles][2], rescale[2];
        products_.run(ring.keys(), dots);
        ring.keys_done(i);
        logits_of(dots, factor_, logits);
        if (softcap_ > 0) cap(softcap_, logits);
        if (!visible_.all_of(ring.block(i))) visible_.hide(ring.block(i), logits);
        if (softmax_of_block(state_, logits, rescale)) sums_.rescale(rescale);
        sums_.add(ring.values(), logits);
        ring.values_done(i);
    }

    // To shared memory, in the form of a partial result.
    __device__ __forceinline__ void store(float* partial) const {
        using Result = RowResult<Traits::kHeadDim>;
        const int lane = threadIdx.x % 32;
        sums_.for_rows([&](int row, int dim, float value) { partial[row * Traits::kHeadDim + dim] = value; });
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const float sum = sum_of_cells(state_.sum[j]);
            if (lane >= 2) continue;
            partial[Result::kMaxima + 2 * lane + j] = state_.max[j];
            partial[Result::kSums + 2 * lane + j] = sum;
        }
    }

  private:
    float softcap_;
    KeyProducts<Traits> products_;
    VisibleCells visible_;
    float factor_[2];
    Softmax state_;
    ValueSums<Traits> sums_;
};

// Whether this thread block is the last of a tile's; it sees what the others have written then.
__device__ inline bool is_last(uint32_t* ticket, int n_blocks) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(ticket, 1) == static_cast<uint32_t>(n_blocks - 1);
        if (last) *ticket = 0;  // for the next call
        __threadfence();
    }
    __syncthreads();
    return last;
}

template <int kHeadDim, int kKeyBits, int kValueBits>
__global__ void __launch_bounds__(32 * kAttendWarps, AttendTraits<kHeadDim, kKeyBits, kValueBits>::kMinBlocks)
    attend_segments(const __grid_constant__ AttendCall call) {
    using Traits = AttendTraits<kHeadDim, kKeyBits, kValueBits>;
    extern __shared__ __align__(128) unsigned char shared[];
    const TileWork work(call);
    if (work.idle) return;
    const int warp = threadIdx.x / 32;
    auto* digits = reinterpret_cast<int8_t*>(shared + Traits::kQueryOffset);
    auto* factors = reinterpret_cast<float*>(shared + Traits::kFactorOffset);
    auto* barriers = reinterpret_cast<uint64_t*>(shared + Traits::kBarrierOffset);
    unsigned char* stage = shared + warp * Traits::kStageBytes;

    const TileRow row(call, work, warp);
    BlockRing<Traits> ring(call, work, stage, barriers + Traits::kSlots * warp);
    {
        QueryRow<kHeadDim> query(call, work, row);
        ring.start();
        query.store(call, warp, digits, factors + warp);
    }
    __syncthreads();
    WarpAttention<Traits> warp_attention(call, work, digits, factors);
    auto* results = reinterpret_cast<float*>(shared + Traits::kResultOffset);
    float* partials = call.partials + work.index(call) * call.n_segments * Traits::kPartialFloats;
    int i = 0, turn = 0;
    for (int segment = work.begin_segment; segment < work.stop_segment; ++segment, turn ^= 1) {
        warp_attention.clear();
        for (const int end = static_cast<int>(call.segments.first_block(segment + 1));
             i < ring.size() && ring.block(i) < end; ++i)
            warp_attention.attend(ring, i);
        // What the warps read here is overwritten two segments later: behind the next one's barrier.
        float* result = results + turn * kAttendWarps * Traits::kPartialFloats;
        warp_attention.store(result + warp * Traits::kPartialFloats);
        __syncthreads();
        RowResult<kHeadDim> of_segment;
        of_segment.merge_shared(result, Traits::kPartialFloats, warp);
        if (work.end_segment - work.first_segment == 1) return of_segment.finish(call, work, row);
        of_segment.store_partial(partials + int64_t{segment} * Traits::kPartialFloats, warp);
    }
    if (!is_last(call.tickets + work.index(call), work.n_runs(call))) return;
    RowResult<kHeadDim> of_row;
    of_row.merge(partials + int64_t{work.first_segment} * Traits::kPartialFloats, Traits::kPartialFloats,
                 work.end_segment - work.first_segment, warp);
    of_row.finish(call, work, row);
}

template <int kHeadDim, int kKeyBits, int kValueBits>
Status launch_attend(const AttendCall& call, cudaStream_t stream) {
    using Traits = AttendTraits<kHeadDim, kKeyBits, kValueBits>;
    const int64_t n_blocks = (call.shape.n_kv + kBlockCells - 1) / kBlockCells,
                  n_runs = (n_blocks + call.run_blocks - 1) / call.run_blocks;
    const dim3 grid(static_cast<unsigned>(call.shape.n_head_kv * call.n_tiles), static_cast<unsigned>(n_runs),
                    static_cast<unsigned>(call.shape.n_stream));
    attend_segments<kHeadDim, kKeyBits, kValueBits><<<grid, 32 * kAttendWarps, Traits::kSharedBytes, stream>>>(call);
    return status_of(cudaGetLastError(), "attention");
}

template <int kHeadDim, int kKeyBits, int kValueBits>
Status prepare_attend() {
    return status_of(cudaFuncSetAttribute(attend_segments<kHeadDim, kKeyBits, kValueBits>,
                                          cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          AttendTraits<kHeadDim, kKeyBits, kValueBits>::kSharedBytes),
                     "preparing an attention kernel");
}

}  // namespace tq::cuda
