#include "attend.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include <mlx/backend/cpu/encoder.h>

#include "device.h"
#include "exact_graph.h"
#include "exact_streams.h"
#include "nodes.h"
#include "workers.h"

namespace tq::mlx_plugin {
namespace {

// What run() reads, with all that its pointers lead to.
struct Work {
    LayerCodecPtr codec;
    AttendCall call;
    AttentionPlan plan;
    AttentionInputs inputs;
    ExactSource exact_keys, exact_values;  // without data: none
    std::vector<int64_t> n_kv, n_tokens;
    char* out;
    size_t out_bytes;

    void run();
};

void Work::run() {
    n_kv.clear(), n_tokens.clear();
    for (const StreamCells& stream : call.streams) {
        n_kv.push_back(stream.n_kv);
        n_tokens.push_back(stream.n_tokens);
    }
    inputs.n_kv_of_stream = n_kv.data();
    inputs.n_tokens_of_stream = n_tokens.data();
    const int64_t most_tokens = plan.geometry().shape.n_tokens;
    if (std::ranges::any_of(n_tokens, [&](int64_t n) { return n < most_tokens; })) std::memset(out, 0, out_bytes);

    std::optional<ExactStreams> exact;
    if (exact_keys.before) {
        exact.emplace(*codec, call.streams, most_tokens, inputs.mask != nullptr, exact_keys, exact_values);
        inputs.exact_k = exact->keys();
        inputs.exact_v = exact->values();
    }
    check(plan.bind(inputs));
    // It is allocated when it is used: a graph runs far behind the thread that makes it, and all its nodes are there at
    // once.
    const mx::allocator::Data memory = mx::allocator::malloc(plan.workspace_bytes() + kRecordAlignment);
    void* workspace = memory.buffer().raw_ptr();
    size_t space = plan.workspace_bytes() + kRecordAlignment;
    std::align(kRecordAlignment, plan.workspace_bytes(), workspace, space);
    for (AttentionPhase phase : {AttentionPhase::kPrepare, AttentionPhase::kAttend, AttentionPhase::kMerge}) {
        run_items(plan.n_items(phase),
                  [&](int64_t item, int thread) { plan.run(phase, item, thread, inputs, workspace); });
    }
}

}  // namespace

AttentionInputs Attend::library_inputs(const std::vector<mx::array>& inputs, mx::array& out) const {
    const AttentionShape& shape = plan_.geometry().shape;
    const mx::array& q = inputs[order_.q];
    AttentionInputs in;
    in.q = q.data<char>();
    in.q_type = in.out_type = float_type_of(q, "q");
    in.q_token_stride = bytes_of(in.q_type) * static_cast<size_t>(shape.head_dim_k);
    in.q_head_stride = in.q_token_stride * static_cast<size_t>(shape.n_tokens);
    in.q_stream_stride = in.q_head_stride * static_cast<size_t>(shape.n_head);
    in.k = packed_tensor(inputs[order_.keys], codec_->side(Side::kKey));
    in.v = packed_tensor(inputs[order_.values], codec_->side(Side::kValue));
    if (order_.mask > 0) {
        const mx::array& mask = inputs[order_.mask];
        in.mask = mask.data<uint16_t>();
        in.mask_token_stride = sizeof(uint16_t) * static_cast<size_t>(shape.n_kv);
        in.mask_stream_stride = mask.shape(0) == 1 ? 0 : in.mask_token_stride * static_cast<size_t>(shape.n_tokens);
    }
    if (order_.sinks > 0) in.sinks = inputs[order_.sinks].data<float>();
    in.out = out.data<char>();
    in.out_token_stride = bytes_of(in.out_type) * static_cast<size_t>(shape.head_dim_v);
    in.out_head_stride = in.out_token_stride * static_cast<size_t>(shape.n_tokens);
    in.out_stream_stride = in.out_head_stride * static_cast<size_t>(shape.n_head);
    return in;
}

void Attend::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
    mx::array& out = outputs[0];
    out.set_data(mx::allocator::malloc(out.nbytes()));
    for (const mx::array& input : inputs) check_contiguous(input, "attend: an input");
    auto work = std::make_shared<Work>(
        Work{codec_, call_, plan_, library_inputs(inputs, out), {}, {}, {}, {}, out.data<char>(), out.nbytes()});
    if (order_.exact > 0) {
        const auto source = [&](size_t at) {
            return ExactSource{inputs[at].data<uint16_t>(), inputs[at + 1].data<char>(),
                               float_type_of(inputs[at + 1], "rows")};
        };
        work->exact_keys = source(order_.exact);
        work->exact_values = source(order_.exact + 2);
    }
    auto& encoder = mx::cpu::get_command_encoder(stream());
    for (const mx::array& input : inputs) encoder.set_input_array(input);
    encoder.set_output_array(out);
    encoder.dispatch([work] { work->run(); });
}

namespace {

std::invalid_argument wrong_shape(const char* what, const mx::array& array, const std::string& wanted) {
    return std::invalid_argument("attend: " + std::string(what) + " of shape " + text_of(array.shape()) +
                                 "; this cache takes " + wanted);
}

void check_shapes(const LayerCodec& codec, const AttendCall& call, const AttendInputs& in) {
    const LayerShape& shape = codec.shape();
    const auto n_stream = static_cast<int>(call.streams.size());
    if (in.q.ndim() != 4 || in.q.shape(0) != n_stream || in.q.shape(3) != shape.head_dim_k) {
        throw wrong_shape(
            "queries", in.q,
            "(" + std::to_string(n_stream) + ", heads, tokens, " + std::to_string(shape.head_dim_k) + ")");
    }
    int64_t n_blocks = 0;
    for (const StreamCells& stream : call.streams) {
        n_blocks = std::max(n_blocks, blocks_of_cells(stream.n_kv));
        if (stream.n_kv < stream.n_tokens || stream.n_tokens < 0 || stream.n_tokens > in.q.shape(2))
            throw std::invalid_argument("attend: " + std::to_string(stream.n_tokens) + " tokens of a stream with " +
                                        std::to_string(stream.n_kv) + " cells");
    }
    for (Side side : {Side::kKey, Side::kValue}) {
        const mx::array& records = side == Side::kKey ? in.keys : in.values;
        const auto block_bytes = static_cast<int>(codec.side(side).format().block_bytes());
        if (records.ndim() != 3 || records.dtype() != mx::uint8 || records.shape(0) != n_stream ||
            records.shape(2) != block_bytes || records.shape(1) < n_blocks) {
            throw wrong_shape("records", records,
                              "(" + std::to_string(n_stream) + ", at least " + std::to_string(n_blocks) + ", " +
                                  std::to_string(block_bytes) + ") of uint8");
        }
    }
}

AttentionShape attention_shape(const LayerCodec& codec, const AttendCall& call, const mx::array& q) {
    AttentionShape shape;
    shape.head_dim_k = codec.shape().head_dim_k;
    shape.head_dim_v = codec.shape().head_dim_v;
    shape.n_head = q.shape(1);
    shape.n_head_kv = codec.shape().n_head_kv;
    shape.n_tokens = q.shape(2);
    for (const StreamCells& stream : call.streams) shape.n_kv = std::max(shape.n_kv, stream.n_kv);
    shape.n_stream = q.shape(0);
    shape.scale = call.scale;
    shape.softcap = call.softcap;
    shape.n_threads = n_workers();
    shape.n_exact = codec.exact().n_per_query();
    shape.causal = call.causal;
    shape.window = call.window;
    return shape;
}

// The library's mask and sinks are of fixed types; (..., n_tokens, n_kv) must not differ from head to head.
void check_extras(const AttentionShape& shape, const AttendInputs& in) {
    if (in.mask &&
        (in.mask->dtype() != mx::float16 || in.mask->ndim() != 3 || in.mask->shape(1) != shape.n_tokens ||
         in.mask->shape(2) != shape.n_kv || (in.mask->shape(0) != 1 && in.mask->shape(0) != shape.n_stream))) {
        throw wrong_shape("mask", *in.mask,
                          "(1 or " + std::to_string(shape.n_stream) + ", " + std::to_string(shape.n_tokens) + ", " +
                              std::to_string(shape.n_kv) + ") of float16");
    }
    if (in.sinks && (in.sinks->dtype() != mx::float32 || in.sinks->size() != static_cast<size_t>(shape.n_head)))
        throw wrong_shape("sinks", *in.sinks, "(" + std::to_string(shape.n_head) + ") of float32");
}

const ExactSide& checked(const LayerCodec& codec, Side side, const mx::array& q,
                         const std::optional<ExactSide>& exact) {
    const int n_embd = static_cast<int>(codec.side(side).format().n_embd);
    const mx::Shape slots{q.shape(0), static_cast<int>(codec.exact().n_slots()), n_embd};
    const mx::Shape rows{q.shape(0), codec.shape().n_head_kv, q.shape(2), codec.shape().head_dim(side)};
    if (!exact || exact->before.shape() != slots || exact->before.dtype() != mx::float16 ||
        exact->tokens.shape() != rows)
        throw std::invalid_argument("attend: exact rows must be " + text_of(slots) + " of float16 and " +
                                    text_of(rows));
    float_type_of(exact->tokens, "attend: rows");
    return *exact;
}

// Rows behind a stream's tokens are zeros.
mx::array without_padding(const mx::array& out, const AttendCall& call, mx::Stream stream) {
    std::vector<int32_t> n_tokens;
    for (const StreamCells& cells : call.streams) n_tokens.push_back(static_cast<int32_t>(cells.n_tokens));
    if (std::ranges::all_of(n_tokens, [&](int32_t n) { return n == out.shape(2); })) return out;
    const mx::array counts(n_tokens.data(), {out.shape(0), 1, 1, 1}, mx::int32);
    const mx::array token = mx::reshape(mx::arange(out.shape(2), mx::int32, stream), {1, 1, -1, 1}, stream);
    return mx::where(mx::less(token, counts, stream), out, mx::zeros({1}, out.dtype(), stream), stream);
}

}  // namespace

mx::array attend(const LayerCodecPtr& codec, const AttendCall& call, const AttendInputs& in) {
    float_type_of(in.q, "attend: queries");
    check_shapes(*codec, call, in);
    const AttentionShape shape = attention_shape(*codec, call, in.q);
    auto plan = AttentionPlan::create(shape, codec->side(Side::kKey), codec->side(Side::kValue), codec->engine());
    check(plan.status());
    check_extras(shape, in);

    const mx::Stream stream = mx::to_stream({});
    std::vector<mx::array> inputs{mx::contiguous(in.q, false, stream), in.keys, in.values};
    Attend::Order order;
    const auto add = [&](const mx::array& input) {
        inputs.push_back(mx::contiguous(input, false, stream));
        return inputs.size() - 1;
    };
    if (in.mask) order.mask = add(*in.mask);
    if (in.sinks) order.sinks = add(*in.sinks);
    const bool gpu = runs_on_gpu(stream);
    if (std::string reason = unsupported_reason(*codec, in.q.shape(1), in.mask.has_value()); !reason.empty())
        throw std::invalid_argument("attend: " + reason);
    if (codec->exact().any()) {
        order.exact = inputs.size();
        for (Side side : {Side::kKey, Side::kValue}) {
            const ExactSide& exact = checked(*codec, side, in.q, side == Side::kKey ? in.exact_keys : in.exact_values);
            if (gpu) {
                inputs.push_back(gather_exact(exact, stream));
            } else {
                add(exact.before);
                add(exact.tokens);
            }
        }
    }
    const mx::Shape shape_of_out{in.q.shape(0), in.q.shape(1), in.q.shape(2), codec->shape().head_dim_v};
    auto node = std::make_shared<Attend>(stream, codec, call, std::move(plan.value()), order);
    const mx::array out(shape_of_out, in.q.dtype(), std::move(node), std::move(inputs));
    return gpu ? without_padding(out, call, stream) : out;
}

std::string unsupported_reason(const LayerCodec& codec, int n_head, bool has_mask) {
    AttentionShape shape;
    shape.head_dim_k = codec.shape().head_dim_k;
    shape.head_dim_v = codec.shape().head_dim_v;
    shape.n_head = n_head;
    shape.n_head_kv = codec.shape().n_head_kv;
    if (std::string reason = tq::unsupported_reason(shape); !reason.empty()) return reason;
    if (!runs_on_gpu(mx::to_stream({}))) return "";
    // Which rows a query takes exactly is worked out on the host, which cannot see what a mask hides.
    if (has_mask && codec.exact().any()) return "a mask beside sinks or a window of exact rows, on a GPU";
    return gpu_unsupported_reason(codec, shape);
}

}  // namespace tq::mlx_plugin
