// The kernel: a thread block of four warps attends with a tile of query rows to a run of segments of the cells that
// they see. Warps take blocks of 64 cells in turn and meet at the end of each segment, while the next one's blocks are
// on their way. Where there are several segments, the thread block that ends last merges all of them.
#pragma once

#include "turboquant/cuda/block_ring.cuh"
#include "turboquant/cuda/block_sums.cuh"
#include "turboquant/cuda/merge.cuh"
#include "turboquant/cuda/query.cuh"

namespace tq::cuda {

// The cells that a lane's two rows see, and those that all rows of the tile do.
template <int kRows>
struct VisibleCells {
    using Share = LaneShare<kRows>;
    int first[2], end[2];
    int first_of_all, end_of_all;

    __device__ VisibleCells(const AttendCall& call, const TileWork& work) {
        first_of_all = 0, end_of_all = static_cast<int>(work.cells.end);
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
            const CellRange cells = TileRow(call, work, row).cells;
            first_of_all = larger(first_of_all, static_cast<int>(cells.first));
            end_of_all = smaller(end_of_all, static_cast<int>(cells.end));
            if (row / 2 * 2 != Share::first_row()) continue;
            first[row % 2] = static_cast<int>(cells.first);
            end[row % 2] = static_cast<int>(cells.end);
        }
    }
    __device__ bool all_of(int block) const {
        return block * kBlockCells >= first_of_all && (block + 1) * kBlockCells <= end_of_all;
    }
    __device__ void hide(int block, float (&logits)[Share::kCells][2]) const {
#pragma unroll
        for (int i = 0; i < Share::kCells; ++i) {
            const int cell = block * kBlockCells + Share::cell(i);
            for (int j = 0; j < 2; ++j)
                if (cell < first[j] || cell >= end[j]) logits[i][j] = kMinusInfinity;
        }
    }
};

// Logits in units of the softcap become softcap * tanh(logit), in base 2; exact to 2^-22 of the softcap.
template <int kCells>
__device__ __forceinline__ void cap(float softcap, float (&logits)[kCells][2]) {
#pragma unroll
    for (int i = 0; i < 2 * kCells; ++i) {
        float& x = logits[i / 2][i % 2];
        x = softcap * kLog2E * (1 - __fdividef(2.0f, 1 + exp2_fast(2 * kLog2E * fminf(x, 40.0f))));
    }
}

// logits become weights: 2^64 exp2(logit - max). Returns whether a maximum grew, and what earlier sums are to be
// multiplied by.
template <int kRows>
__device__ __forceinline__ bool softmax_of_block(Softmax& state, float (&logits)[LaneShare<kRows>::kCells][2],
                                                 float (&rescale)[2]) {
    constexpr int kCells = LaneShare<kRows>::kCells;
    bool grew = false;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        float top = logits[0][j];
#pragma unroll
        for (int i = 1; i < kCells; ++i) top = fmaxf(top, logits[i][j]);
        top = fmaxf(LaneShare<kRows>::max_of_cells(top), state.max[j]);
        rescale[j] = exp2_fast(state.max[j] - top);
        grew = grew || top > state.max[j];
        state.max[j] = top;
        state.sum[j] *= rescale[j];
#pragma unroll
        for (int i = 0; i < kCells; ++i) {
            logits[i][j] = exp2_fast(logits[i][j] - top + 64);
            state.sum[j] += logits[i][j];
        }
    }
    return __any_sync(kAllLanes, grew);
}

// A warp's state in a segment.
template <class Traits>
class WarpAttention {
  public:
    using Share = LaneShare<Traits::kRows>;

    __device__ WarpAttention(const AttendCall& call, const TileWork& work, const int8_t* digits, const float* factors)
        : softcap_(call.shape.softcap),
          products_(digits, work.head_kv, {call.minus_one, call.byte_one}),
          visible_(call, work),
          factor_{factors[Share::first_row()], factors[Share::first_row() + 1]},
          sums_(work.head_kv, {call.minus_one, call.byte_one}) {}

    __device__ void clear() {
        state_ = {};
        sums_.clear();
    }

    // Block i of the ring.
    __device__ __forceinline__ void attend(BlockRing<Traits>& ring, int i) {
        typename KeyProducts<Traits>::Sums dots;
        float logits[Share::kCells][2], rescale[2];
        products_.run(ring.keys(), dots);
        ring.keys_done(i);
        logits_of(dots, factor_, logits);
        if (softcap_ > 0) cap(softcap_, logits);
        if (!visible_.all_of(ring.block(i))) visible_.hide(ring.block(i), logits);
        if (softmax_of_block<Traits::kRows>(state_, logits, rescale)) sums_.rescale(rescale);
        sums_.add(ring.values(), logits);
        ring.values_done(i);
    }

    // To shared memory, in the form of a partial result.
    __device__ __forceinline__ void store(float* partial) const {
        using Result = RowResult<Traits::kHeadDim, Traits::kRows>;
        const int lane = threadIdx.x % 32;
        sums_.for_rows([&](int row, int dim, float value) { partial[row * Traits::kHeadDim + dim] = value; });
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const float sum = Share::sum_of_cells(state_.sum[j]);
            if (2 * lane >= Traits::kRows) continue;
            partial[Result::kMaxima + 2 * lane + j] = state_.max[j];
            partial[Result::kSums + 2 * lane + j] = sum;
        }
    }

  private:
    float softcap_;
    KeyProducts<Traits> products_;
    VisibleCells<Traits::kRows> visible_;
    float factor_[2];
    Softmax state_;
    ValueSums<Traits> sums_;
};

// Queries are loaded before the blocks' copies start, and prepared while these are on their way.
template <class Traits>
__device__ __forceinline__ void start(const AttendCall& call, const TileWork& work, BlockRing<Traits>& ring,
                                      int8_t* digits, float* factors) {
    const int warp = threadIdx.x / 32;
    QueryRow<Traits::kHeadDim> first(call, work, TileRow(call, work, warp));
    if constexpr (Traits::kRowsOfWarp == 1) {
        ring.start();
    } else {
        QueryRow<Traits::kHeadDim> second(call, work, TileRow(call, work, warp + kAttendWarps));
        ring.start();
        second.store(call, warp + kAttendWarps, Traits::kRows, digits, factors + warp + kAttendWarps);
    }
    first.store(call, warp, Traits::kRows, digits, factors + warp);
}

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

template <class Traits>
__global__ void __launch_bounds__(32 * kAttendWarps, Traits::kMinBlocks)
    attend_segments(const __grid_constant__ AttendCall call) {
    using Result = RowResult<Traits::kHeadDim, Traits::kRows>;
    extern __shared__ __align__(128) unsigned char shared[];
    const TileWork work(call);
    if (work.idle) return;
    const int warp = threadIdx.x / 32;
    auto* digits = reinterpret_cast<int8_t*>(shared + Traits::kQueryOffset);
    auto* factors = reinterpret_cast<float*>(shared + Traits::kFactorOffset);
    auto* barriers = reinterpret_cast<uint64_t*>(shared + Traits::kBarrierOffset);

    BlockRing<Traits> ring(call, work, shared + warp * Traits::kStageBytes, barriers + Traits::kSlots * warp);
    start<Traits>(call, work, ring, digits, factors);
    __syncthreads();
    WarpAttention<Traits> warp_attention(call, work, digits, factors);
    auto* results = reinterpret_cast<float*>(shared + Traits::kResultOffset);
    float* partials = call.partials + work.index(call) * call.n_segments * Traits::kPartialFloats;
    const int n_segments = work.end_segment - work.first_segment;
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
        for (int row = warp; row < Traits::kRows; row += kAttendWarps) {
            Result of_segment;
            of_segment.merge_shared(result, Traits::kPartialFloats, row);
            if (n_segments == 1)
                of_segment.finish(call, work, TileRow(call, work, row));
            else
                of_segment.store_partial(partials + int64_t{segment} * Traits::kPartialFloats, row);
        }
    }
    if (n_segments == 1 || !is_last(call.tickets + work.index(call), work.n_runs(call))) return;
    for (int row = warp; row < Traits::kRows; row += kAttendWarps) {
        Result of_row;
        of_row.merge(partials + int64_t{work.first_segment} * Traits::kPartialFloats, Traits::kPartialFloats, n_segments,
                     row);
        of_row.finish(call, work, TileRow(call, work, row));
    }
}

template <class Traits>
Status launch_tiles(const AttendCall& call, cudaStream_t stream) {
    const int64_t n_blocks = (call.shape.n_kv + kBlockCells - 1) / kBlockCells,
                  n_runs = (n_blocks + call.run_blocks - 1) / call.run_blocks;
    const dim3 grid(static_cast<unsigned>(call.shape.n_head_kv * call.n_tiles), static_cast<unsigned>(n_runs),
                    static_cast<unsigned>(call.shape.n_stream));
    attend_segments<Traits><<<grid, 32 * kAttendWarps, Traits::kSharedBytes, stream>>>(call);
    return status_of(cudaGetLastError(), "attention");
}

template <int kHeadDim, int kKeyBits, int kValueBits>
Status launch_attend(const AttendCall& call, cudaStream_t stream) {
    if (call.tile_rows == 8) return launch_tiles<AttendTraits<kHeadDim, kKeyBits, kValueBits, 8>>(call, stream);
    return launch_tiles<AttendTraits<kHeadDim, kKeyBits, kValueBits, 4>>(call, stream);
}

template <class Traits>
Status prepare_tiles() {
    return status_of(cudaFuncSetAttribute(attend_segments<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          Traits::kSharedBytes),
                     "preparing an attention kernel");
}

template <int kHeadDim, int kKeyBits, int kValueBits>
Status prepare_attend() {
    const Status status = prepare_tiles<AttendTraits<kHeadDim, kKeyBits, kValueBits, 4>>();
    return status.ok() ? prepare_tiles<AttendTraits<kHeadDim, kKeyBits, kValueBits, 8>>() : status;
}

}  // namespace tq::cuda
