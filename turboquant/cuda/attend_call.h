// What the attention kernels are given, by value.
#pragma once

#include <string>

#include "turboquant/cuda/attention.h"

namespace tq::cuda {

struct AttendCall {
    AttentionInputs in;
    RecordOrder key_order, value_order;
    int64_t key_block_bytes, value_block_bytes;
    const float *key_diagonals, *value_diagonals;
    int n_key_diagonal, n_value_diagonal;

    AttentionShape shape;
    int group_size, tile_rows, n_tiles, n_segments;
    int run_blocks;  // a thread block has the segments that begin in a run of so many blocks
    Segments segments;

    uint32_t minus_one, byte_one;  // -1 and 256 (levels.cuh)

    uint32_t* tickets;  // [stream][tile][KV head], 0 between calls
    float* partials;    // [stream][tile][KV head][segment][partial_floats]
};

// Kernels for heads of this size and codes of these bits. Error: the driver's.
template <int kHeadDim, int kKeyBits, int kValueBits>
Status launch_attend(const AttendCall& call, cudaStream_t stream);
// Lets the kernel have the shared memory that it needs; once before its launches. Error: the driver's.
template <int kHeadDim, int kKeyBits, int kValueBits>
Status prepare_attend();

struct AttendInstance {
    int head_dim, key_bits, value_bits;
    Status (*launch)(const AttendCall& call, cudaStream_t stream);
    Status (*prepare)();
};
// Of those in this build, or null.
const AttendInstance* find_attend(int head_dim, int key_bits, int value_bits);
// All of them, as "64: k4v4 ...".
std::string attend_instances();

}  // namespace tq::cuda
