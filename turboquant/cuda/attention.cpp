#include "turboquant/cuda/attention.h"

#include <string>

#include "turboquant/cuda/attend_call.h"

namespace tq::cuda {
namespace {

Status check_codec(const char* name, const Codec& codec, Side side, int head_dim, int n_head_kv) {
    if (codec.format().side == side && codec.head_dim() == head_dim && codec.order().n_head == n_head_kv) return {};
    return Status(Error::kInvalidArgument,
                  std::string("the ") + name + " codec is not one of this head_dim and n_head_kv");
}

}  // namespace

Result<AttentionPlan> AttentionPlan::create(const AttentionShape& shape, const Codec& keys, const Codec& values,
                                            const AttentionOptions& options) {
    if (Status s = device_status(); !s.ok()) return s;
    if (Status s = check_codec("key", keys, Side::kKey, shape.head_dim_k, shape.n_head_kv); !s.ok()) return s;
    if (Status s = check_codec("value", values, Side::kValue, shape.head_dim_v, shape.n_head_kv); !s.ok()) return s;
    int device = 0, n_multiprocessors = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&n_multiprocessors, cudaDevAttrMultiProcessorCount, device);
    if (Status s = status_of(error, "reading a device's properties"); !s.ok()) return s;
    const Result<AttentionGeometry> geometry =
        attention_geometry(shape, keys.format().bits, values.format().bits, options, n_multiprocessors);
    if (!geometry.ok()) return geometry.status();
    const AttendInstance* instance = find_attend(shape.head_dim_k, keys.format().bits, values.format().bits);
    if (!instance) {
        return Status(Error::kUnsupported,
                      "this build has no attention kernel for head_dim " + std::to_string(shape.head_dim_k) + ", k" +
                          std::to_string(keys.format().bits) + "v" + std::to_string(values.format().bits) +
                          " (TQ_CUDA_HEAD_DIMS and TQ_CUDA_PRESETS choose them); it has " + attend_instances());
    }
    AttentionPlan plan;
    plan.geometry_ = geometry.value();
    plan.key_order_ = keys.order();
    plan.value_order_ = values.order();
    plan.key_block_bytes_ = static_cast<int64_t>(keys.format().block_bytes());
    plan.value_block_bytes_ = static_cast<int64_t>(values.format().block_bytes());
    plan.key_diagonals_ = keys.diagonals();
    plan.value_diagonals_ = values.diagonals();
    plan.n_key_diagonal_ = keys.n_diagonal();
    plan.n_value_diagonal_ = values.n_diagonal();
    plan.launch_ = instance->launch;
    if (Status s = instance->prepare(); !s.ok()) return s;
    return plan;
}

Status AttentionPlan::initialize(void* workspace, cudaStream_t stream) const {
    return status_of(cudaMemsetAsync(workspace, 0, geometry_.partial_offset, stream), "clearing the workspace");
}

Status AttentionPlan::run(const AttentionInputs& in, void* workspace, cudaStream_t stream) const {
    if (!in.q || !in.out || !in.k.records || !in.v.records || !workspace)
        return Status(Error::kInvalidArgument, "q, out, the records of keys or values, or the workspace is null");
    const int64_t n_blocks = (geometry_.shape.n_kv + kBlockCells - 1) / kBlockCells;
    if (n_blocks > in.k.blocks_of_stream || n_blocks > in.v.blocks_of_stream) {
        return Status(Error::kInvalidArgument, "n_kv " + std::to_string(geometry_.shape.n_kv) + " needs " +
                                                   std::to_string(n_blocks) + " blocks of a stream; there are " +
                                                   std::to_string(in.k.blocks_of_stream) + " of keys and " +
                                                   std::to_string(in.v.blocks_of_stream) + " of values");
    }
    AttendCall call{};
    call.in = in;
    call.key_order = key_order_;
    call.value_order = value_order_;
    call.key_block_bytes = key_block_bytes_;
    call.value_block_bytes = value_block_bytes_;
    call.key_diagonals = key_diagonals_;
    call.value_diagonals = value_diagonals_;
    call.n_key_diagonal = n_key_diagonal_;
    call.n_value_diagonal = n_value_diagonal_;
    call.shape = geometry_.shape;
    call.group_size = geometry_.group_size;
    call.tile_rows = geometry_.tile_rows;
    call.n_tiles = geometry_.n_tiles;
    call.n_segments = geometry_.n_segments;
    call.run_blocks = geometry_.run_blocks;
    call.segments = geometry_.segments;
    call.minus_one = 0xffffffff;
    call.byte_one = 0x100;
    call.tickets = static_cast<uint32_t*>(workspace);
    call.partials = reinterpret_cast<float*>(static_cast<char*>(workspace) + geometry_.partial_offset);
    return launch_(call, stream);
}

}  // namespace tq::cuda
