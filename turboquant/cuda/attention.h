// Fused attention on packed keys and values on a device: a plan (sizes everything) and its run (allocates nothing,
// may be captured in a CUDA graph). turboquant/attention says what is computed; the bits are not the CPU's, since
// queries and weights have 16 bits here.
//
// Two runs of a plan give the same bits; with AttentionOptions::batch_invariant, so do any two calls in which a row has
// the same query and cells.
//
// Accuracy, against attention_reference: queries are rounded to 16 bits of their head's largest value, weights to 16
// bits of their block's largest. tests/cuda_attention_test.cpp has the bound.
#pragma once

#include <cuda_runtime_api.h>

#include "turboquant/cuda/attention_geometry.h"
#include "turboquant/cuda/codec.h"

namespace tq::cuda {

// What a plan runs on; every pointer is to device memory. Shapes and strides are those of tq::AttentionInputs.
struct AttentionInputs {
    const void* q = nullptr;
    FloatType q_type = FloatType::kF32;
    size_t q_token_stride = 0, q_head_stride = 0, q_stream_stride = 0;

    DeviceRecords k, v;  // of the codecs that the plan was made for; stream 0 of the call is their first

    const int64_t* n_kv_of_stream = nullptr;
    const int64_t* n_tokens_of_stream = nullptr;

    const float* sinks = nullptr;

    void* out = nullptr;
    FloatType out_type = FloatType::kF32;
    size_t out_head_stride = 0, out_token_stride = 0, out_stream_stride = 0;

    float* lse = nullptr;
    size_t lse_head_stride = 0, lse_token_stride = 0, lse_stream_stride = 0;
};

struct AttendCall;  // attend_call.h

class AttentionPlan {
  public:
    // n_threads of the shape is not used. Errors: kUnsupported with the reason, kInvalidArgument.
    static Result<AttentionPlan> create(const AttentionShape& shape, const Codec& keys, const Codec& values,
                                        const AttentionOptions& options = {});

    // Bytes of device memory, at a multiple of 256, that run() needs. Calls that may run at the same time need one
    // each.
    size_t workspace_bytes() const { return geometry_.workspace_bytes; }
    // Starts what the workspace needs once, before its first run.
    Status initialize(void* workspace, cudaStream_t stream) const;
    // Starts the work on the stream. Error: kInvalidArgument naming the input, kUnsupported (the driver's).
    Status run(const AttentionInputs& inputs, void* workspace, cudaStream_t stream) const;

    const AttentionGeometry& geometry() const { return geometry_; }

  private:
    AttentionPlan() = default;

    AttentionGeometry geometry_{};
    RecordOrder key_order_{}, value_order_{};
    int64_t key_block_bytes_ = 0, value_block_bytes_ = 0;
    const float *key_diagonals_ = nullptr, *value_diagonals_ = nullptr;
    int n_key_diagonal_ = 0, n_value_diagonal_ = 0;
    Status (*launch_)(const AttendCall& call, cudaStream_t stream) = nullptr;
};

}  // namespace tq::cuda
