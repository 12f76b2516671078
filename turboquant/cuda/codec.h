// Rows into records on a device and back: the codec of turboquant/cpu, code for code, in the GPU's order of bits.
#pragma once

#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

#include "turboquant/base/float_type.h"
#include "turboquant/cuda/device.h"
#include "turboquant/cuda/record_order.h"
#include "turboquant/format/row_format.h"

namespace tq::cuda {

// Look-up tables of a codebook (format/codebook.h) on the device.
struct CodecTables {
    uint8_t nearest[128];  // rounded magnitude -> magnitude of the nearest level
    uint8_t code[128];     // rounded magnitude -> code, for values >= 0
    int8_t level[256];     // code -> level
    float sigma_units;
};

// Records of a tensor, on the device. Streams are sequences with cells of their own.
struct DeviceRecords {
    uint8_t* records = nullptr;  // n_records records of block_bytes() bytes, at a multiple of 64
    int64_t blocks_of_stream = 0;
    // [stream][blocks_of_stream], on the device: the record of each block. Null: stream s has the records from
    // s * blocks_of_stream on.
    const int32_t* block_table = nullptr;
};

// Rows of cells that follow one another, stream by stream, on the device. Strides are in bytes.
struct DeviceRows {
    void* rows = nullptr;  // `type` (n_embd, n_tokens, n_stream)
    FloatType type = FloatType::kF32;
    size_t token_stride = 0, stream_stride = 0;
    int64_t n_tokens = 0;  // of a stream; with n_tokens_of_stream, at most so many
    int64_t n_stream = 1;
    int64_t first_cell = 0;  // of token 0
    // (n_stream) each, on the device, or null: all as above.
    const int64_t* first_cell_of_stream = nullptr;
    const int64_t* n_tokens_of_stream = nullptr;
};

class Codec {
  public:
    // channel_scales: format.n_embd of them (format/rotation.h), or none. Tables lie on the current device.
    // Errors: kUnsupported (coding, head_dim), kInvalidArgument, kOutOfMemory.
    static Result<Codec> create(const RowFormat& format, int head_dim, std::span<const float> channel_scales = {});

    const RowFormat& format() const { return format_; }
    int head_dim() const { return order_.head_dim; }
    const RecordOrder& order() const { return order_; }

    // These start work on the stream and return; they allocate nothing and may be captured in a CUDA graph. What they
    // point to has to stay until the work is done. Errors: kInvalidArgument, kUnsupported (the driver's).

    // Rows into records. Other cells of their blocks keep what they hold.
    Status encode(const DeviceRows& rows, const DeviceRecords& to, cudaStream_t stream) const;
    // Records into rows; `rotated`: without the rotation back, as attention has them.
    Status decode(const DeviceRecords& from, const DeviceRows& rows, bool rotated, cudaStream_t stream) const;

    // Blocks [0, n_blocks) of stream 0 as rows of codes [64 n_blocks][n_embd] and scales [64 n_blocks][n_groups], a
    // byte each, which are the same for all engines (format/plain_block.h); and the other way round.
    Status unpack(const DeviceRecords& from, int64_t n_blocks, uint8_t* codes, uint8_t* scales,
                  cudaStream_t stream) const;
    Status pack(const uint8_t* codes, const uint8_t* scales, int64_t n_blocks, const DeviceRecords& to,
                cudaStream_t stream) const;

    // On the device, of all heads: [3: first, first inverse, second][head_dim, or n_embd with channel scales].
    const float* diagonals() const { return diagonals_.data<float>(); }
    int n_diagonal() const { return n_diagonal_; }
    const CodecTables* tables() const { return tables_.data<CodecTables>(); }

  private:
    Codec() = default;

    RowFormat format_;
    RecordOrder order_{};
    int n_diagonal_ = 0;
    DeviceMemory diagonals_, tables_;
};

}  // namespace tq::cuda
