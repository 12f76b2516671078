// What the codec's kernels are given: plain structs, by value.
#pragma once

#include "turboquant/cuda/codec.h"

namespace tq::cuda {

struct RowsCall {
    RecordOrder order;
    DeviceRecords records;
    DeviceRows rows;
    int64_t block_bytes;
    int slice_dims;  // the least run of dims that holds whole heads and whole groups, or the row
    const float* diagonals;
    int n_diagonal;
    const CodecTables* tables;
    bool rotated;
};

// Error: kUnsupported (the head_dim is not in this build, the driver's).
Status launch_encode(const RowsCall& call, cudaStream_t stream);
Status launch_decode(const RowsCall& call, cudaStream_t stream);

struct PlainCall {
    RecordOrder order;
    DeviceRecords records;
    int64_t block_bytes, n_blocks;
    uint8_t* codes;
    uint8_t* scales;
};
Status launch_unpack(const PlainCall& call, cudaStream_t stream);
Status launch_pack(const PlainCall& call, cudaStream_t stream);

}  // namespace tq::cuda
