// Rows into records: a thread block takes a slice of a block of 64 cells, so that words which cells share have one
// writer.
#include <string>

#include "turboquant/cuda/floats.cuh"
#include "turboquant/cuda/group_encoder.cuh"
#include "turboquant/cuda/rows.cuh"

namespace tq::cuda {
namespace {

__host__ __device__ int n_groups_of(Side side, int dims) {
    return (dims + group_dims(side) - 1) / group_dims(side);
}

// Shared memory: a rotated slice for each warp, codes, scales, tables.
struct EncodeMemory {
    float* windows;  // [warp][slice_dims]
    PlainCodes plain;
    CodecTables* tables;

    static __host__ __device__ size_t bytes(const RowsCall& call) {
        return sizeof(CodecTables) + sizeof(float) * kRowWarps * call.slice_dims + kBlockCells * call.slice_dims +
               kBlockCells * n_groups_of(call.order.side, call.slice_dims);
    }
    __device__ EncodeMemory(const RowsCall& call, unsigned char* memory) {
        tables = reinterpret_cast<CodecTables*>(memory);
        windows = reinterpret_cast<float*>(memory + sizeof(CodecTables));
        plain.codes = reinterpret_cast<uint8_t*>(windows + kRowWarps * call.slice_dims);
        plain.scales = plain.codes + kBlockCells * call.slice_dims;
    }
};

__device__ void copy_tables(const CodecTables* from, CodecTables* to) {
    static_assert(sizeof(CodecTables) % 4 == 0);
    for (unsigned i = threadIdx.x; i < sizeof(CodecTables) / 4; i += blockDim.x)
        reinterpret_cast<uint32_t*>(to)[i] = reinterpret_cast<const uint32_t*>(from)[i];
}

// A slice of a row, rotated, to `window`.
template <int kHeadDim>
__device__ void rotate_slice(const RowsCall& call, const Dims& dims, const void* row, float* window) {
    using Rotation = WarpRotation<kHeadDim>;
    const int lane = threadIdx.x % 32;
    const Diagonals diagonals(call.diagonals, call.n_diagonal, kHeadDim);
    for (int dim = 0; dim < dims.n; dim += kHeadDim) {
        typename Rotation::Values v;
        for (int k = 0; k < Rotation::kRegs; ++k)
            v[k] = Rotation::has(k, lane) ? load_float(row, call.rows.type, dims.first + dim + 32 * k + lane) : 0.0f;
        Rotation::rotate_row(Rotation::row_factors(diagonals, (dims.first + dim) / kHeadDim, lane), lane, v);
        for (int k = 0; k < Rotation::kRegs; ++k)
            if (Rotation::has(k, lane)) window[dim + 32 * k + lane] = v[k];
    }
}

__device__ void encode_window(const RowsCall& call, const Dims& dims, const EncodeMemory& memory, const float* window,
                              int cell) {
    const Side side = call.order.side;
    const int width = group_dims(side), n_groups = n_groups_of(side, dims.n), half = threadIdx.x % 32 / 16;
    GroupEncoder encoder(*memory.tables, call.order.bits, side == Side::kKey && call.order.bits == 2);
    for (int first = 0; first < n_groups; first += 2) {
        const int group = smaller(first + half, n_groups - 1);  // the last is done twice if their number is odd
        const int n = smaller(width, dims.n - group * width);
        const int scale = encoder.encode(window + group * width, n / 16,
                                         memory.plain.codes + cell * dims.n + group * width);
        memory.plain.scales[group * kBlockCells + scale_place(side, cell)] = static_cast<uint8_t>(scale);
    }
}

template <int kHeadDim>
__global__ void __launch_bounds__(kRowThreads) encode_rows(const RowsCall call) {
    extern __shared__ __align__(16) unsigned char shared[];
    const RowsOfBlock work(call);
    if (work.empty()) return;
    const EncodeMemory memory(call, shared);
    copy_tables(call.tables, memory.tables);
    if (work.end - work.begin < kBlockCells) unpack_codes(call.order, work.dims, work.record, memory.plain);
    __syncthreads();
    float* window = memory.windows + threadIdx.x / 32 * call.slice_dims;
    for (int cell = work.begin + static_cast<int>(threadIdx.x / 32); cell < work.end; cell += kRowWarps) {
        rotate_slice<kHeadDim>(call, work.dims, work.row_of(call, cell), window);
        __syncwarp();
        encode_window(call, work.dims, memory, window, cell);
        __syncwarp();
    }
    __syncthreads();
    pack_codes(call.order, work.dims, memory.plain, work.record);
}

}  // namespace

Status launch_encode(const RowsCall& call, cudaStream_t stream) {
    return with_head_dim(call.order.head_dim, [&]<int kHeadDim>() {
        const size_t bytes = EncodeMemory::bytes(call);
        cudaError_t error = cudaFuncSetAttribute(encode_rows<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(bytes));
        if (error == cudaSuccess) {
            encode_rows<kHeadDim><<<grid_of(call), kRowThreads, bytes, stream>>>(call);
            error = cudaGetLastError();
        }
        return status_of(error, "encoding rows");
    });
}

}  // namespace tq::cuda
