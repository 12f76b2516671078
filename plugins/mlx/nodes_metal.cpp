#include "exact_graph.h"
#include "metal_run.h"
#include "nodes.h"

namespace tq::mlx_plugin {
namespace {

RowStrides strides_of(int64_t heads, int64_t rows, int64_t dims) {
    return {heads * rows * dims, dims, rows * dims};
}

std::vector<float> diagonals(const BlockCodec& codec, bool scaled) {
    std::vector<Rotation> rotations;
    const int64_t n_heads = scaled ? codec.format().n_embd / codec.head_dim() : 1;
    for (int head = 0; head < n_heads; ++head) rotations.push_back(codec.rotation(head));
    return metal_rotation(rotations);
}

MetalRows rows_of(const LayerCodec& codec, Side side, FloatType type, int64_t n_stream, int64_t n_rows,
                  int64_t n_blocks) {
    MetalRows rows;
    rows.format = codec.side(side).format();
    rows.head_dim = codec.side(side).head_dim();
    rows.type = type;
    rows.rows = strides_of(codec.shape().n_head_kv, n_rows, rows.head_dim);
    rows.n_cells = n_blocks * kBlockCells;
    rows.n_rows = n_rows;
    rows.n_stream = n_stream;
    rows.scaled = codec.scaled(side);
    return rows;
}

}  // namespace

std::string gpu_unsupported_reason(const LayerCodec& codec) {
    for (Side side : {Side::kKey, Side::kValue}) {
        const MetalRows rows = rows_of(codec, side, FloatType::kF32, 1, 1, 1);
        if (std::string reason = metal_unsupported_reason(rows); !reason.empty()) return reason;
    }
    return "";
}

std::string gpu_unsupported_reason(const LayerCodec& codec, const AttentionShape& shape) {
    MetalAttention call;
    call.shape = shape;
    call.keys = codec.side(Side::kKey).format();
    call.values = codec.side(Side::kValue).format();
    return metal_unsupported_reason(call);
}

// append() has seen to it that the records' memory may be written to.
void Append::eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
    const mx::array &records = inputs[0], &rows = inputs[1];
    check_contiguous(records, "append: records");
    mx::array& out = outputs[0];
    out.copy_shared_buffer(records);
    std::vector<int32_t> lengths;
    for (const auto& [cell, n] : call_.streams) {
        lengths.push_back(static_cast<int32_t>(cell));
        lengths.push_back(static_cast<int32_t>(n));
    }
    auto plan = plan_metal_append(
        rows_of(*codec_, call_.side, float_type_of(rows, "rows"), rows.shape(0), rows.shape(2), out.shape(1)));
    const RowsLaunch& launch = value_of(plan);
    MetalRun run(stream());
    run.give(kBufferLengths, lengths);
    run.read(kBufferRows, rows);
    run.write(kBufferRecords, out);
    run.give(kBufferRotation, diagonals(codec_->side(call_.side), codec_->scaled(call_.side)));
    run.launch(launch.launch, launch.params);
}

void Attend::eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
    mx::array& out = outputs[0];
    out.set_data(mx::allocator::malloc(out.nbytes()));
    for (const mx::array& input : inputs) check_contiguous(input, "attend: an input");
    const AttentionShape& shape = plan_.geometry().shape;
    const mx::array& q = inputs[order_.q];

    MetalAttention call;
    call.shape = shape;
    call.keys = codec_->side(Side::kKey).format();
    call.values = codec_->side(Side::kValue).format();
    call.q_type = call.out_type = float_type_of(q, "q");
    call.q = strides_of(shape.n_head, shape.n_tokens, shape.head_dim_k);
    call.out = strides_of(shape.n_head, shape.n_tokens, shape.head_dim_v);
    call.k_cells = inputs[order_.keys].shape(1) * int64_t{kBlockCells};
    call.v_cells = inputs[order_.values].shape(1) * int64_t{kBlockCells};
    call.sinks = order_.sinks > 0;
    call.k_scaled = codec_->scaled(Side::kKey);
    call.v_scaled = codec_->scaled(Side::kValue);
    if (order_.mask > 0) {
        call.mask_type = kMaskF16;
        call.mask = {inputs[order_.mask].shape(0) == 1 ? 0 : shape.n_tokens * shape.n_kv, shape.n_kv, 0};
    }
    auto planned = plan_metal_attention(call);
    const AttentionLaunches& plan = value_of(planned);

    std::vector<int32_t> lengths;
    for (const StreamCells& stream : call_.streams) {
        lengths.push_back(static_cast<int32_t>(stream.n_kv));
        lengths.push_back(static_cast<int32_t>(stream.n_tokens));
    }
    MetalRun run(stream());
    run.give(kBufferLengths, lengths);
    run.read(kBufferQuery, q);
    run.read(kBufferKeys, inputs[order_.keys]);
    run.read(kBufferValues, inputs[order_.values]);
    run.give(kBufferKeyRotation, diagonals(codec_->side(Side::kKey), call.k_scaled));
    run.give(kBufferValueRotation, diagonals(codec_->side(Side::kValue), call.v_scaled));
    if (order_.mask > 0) run.read(kBufferMask, inputs[order_.mask]);
    if (order_.sinks > 0) run.read(kBufferSinks, inputs[order_.sinks]);
    if (order_.exact > 0) {
        const ExactLists lists =
            exact_lists(codec_->exact(), call_, shape.n_tokens, plan.params.n_exact, plan.params.hidden_words);
        run.give(kBufferExactList, lists.entries);
        run.give(kBufferExactHidden, lists.hidden);
        run.read(kBufferExactKeys, inputs[order_.exact]);
        run.read(kBufferExactValues, inputs[order_.exact + 1]);
    }
    run.make(kBufferPreparedQuery, plan.prepared_query_bytes);
    run.make(kBufferLogitScale, plan.logit_scale_bytes);
    run.make(kBufferPartialStats, plan.partial_stats_bytes);
    run.make(kBufferPartialOut, plan.partial_out_bytes);
    run.write(kBufferOut, out);
    for (const MetalLaunch& launch : plan.launches) run.launch(launch, plan.params);
}

// decode() puts exact rows in by MLX's own operations.
void Decode::eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
    mx::array& out = outputs[0];
    out.set_data(mx::allocator::malloc(out.nbytes()));
    check_contiguous(inputs[0], "decode: records");
    const int64_t n_stream = out.shape(0);
    std::vector<int32_t> lengths;
    for (int64_t stream = 0; stream < n_stream; ++stream) {
        lengths.push_back(0);
        lengths.push_back(static_cast<int32_t>(call_.n));
    }
    auto plan = plan_metal_decode(
        rows_of(*codec_, call_.side, float_type_of(out, "rows"), n_stream, call_.n, inputs[0].shape(1)));
    const RowsLaunch& launch = value_of(plan);
    MetalRun run(stream());
    run.give(kBufferLengths, lengths);
    run.write(kBufferRows, out);
    run.read(kBufferRecords, inputs[0]);
    run.give(kBufferRotation, diagonals(codec_->side(call_.side), codec_->scaled(call_.side)));
    run.launch(launch.launch, launch.params);
}

}  // namespace tq::mlx_plugin
