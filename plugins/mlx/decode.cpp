#include "decode.h"

#include <algorithm>

#include <mlx/backend/cpu/encoder.h>

#include "device.h"
#include "nodes.h"
#include "turboquant/base/half.h"
#include "workers.h"

namespace tq::mlx_plugin {
namespace {

bool is_exact(const LayerCodec& codec, const DecodeCall& call, size_t stream, int64_t cell) {
    return cell < call.length[stream] && (cell < codec.exact().n_sink || cell >= call.first_exact[stream]);
}

// Decodes one block of a stream.
struct Work {
    LayerCodecPtr codec;
    DecodeCall call;
    PackedTensor packed;
    const uint16_t* exact;  // null: none
    char* out;
    FloatType type;

    bool is_exact(int64_t stream, int64_t cell) const {
        return exact && mlx_plugin::is_exact(*codec, call, static_cast<size_t>(stream), cell);
    }

    void run(int64_t stream, int64_t block, float* rows) const {
        const int64_t n_embd = packed.codec->format().n_embd, head_dim = packed.codec->head_dim();
        const int64_t first = block * kBlockCells, n = std::min<int64_t>(kBlockCells, call.n - first);
        packed.codec->decode_block(packed.blocks(stream), block, 0, static_cast<int>(n), rows);
        for (int64_t i = 0; i < n; ++i) {
            float* row = rows + i * n_embd;
            if (is_exact(stream, first + i)) {
                const int64_t slot = stream * codec->exact().n_slots() + exact_slot(codec->exact(), first + i);
                halves_to_floats(exact + slot * n_embd, n_embd, row);
            }
            for (int64_t head = 0; head < n_embd / head_dim; ++head) {
                const int64_t at = ((stream * (n_embd / head_dim) + head) * call.n + first + i) * head_dim;
                from_floats(row + head * head_dim, head_dim, type, out + static_cast<size_t>(at) * bytes_of(type));
            }
        }
    }
};

}  // namespace

void Decode::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
    mx::array& out = outputs[0];
    out.set_data(mx::allocator::malloc(out.nbytes()));
    for (const mx::array& input : inputs) check_contiguous(input, "decode: an input");
    const Work work{codec_,
                    call_,
                    packed_tensor(inputs[0], codec_->side(call_.side)),
                    inputs.size() > 1 ? inputs[1].data<uint16_t>() : nullptr,
                    out.data<char>(),
                    float_type_of(out, "decode: rows")};
    auto& encoder = mx::cpu::get_command_encoder(stream());
    for (const mx::array& input : inputs) encoder.set_input_array(input);
    encoder.set_output_array(out);
    encoder.dispatch([work] {
        const int64_t n_blocks = blocks_of_cells(work.call.n);
        std::vector<std::vector<float>> rows(n_workers());
        run_items(work.packed.n_stream * n_blocks, [&](int64_t item, int thread) {
            rows[thread].resize(static_cast<size_t>(kBlockCells * work.packed.codec->format().n_embd));
            work.run(item / n_blocks, item % n_blocks, rows[thread].data());
        });
    });
}

namespace {

// `rows` with those cells' that are kept exactly, by MLX's own operations.
mx::array with_exact(const LayerCodec& codec, const DecodeCall& call, const mx::array& rows, const mx::array& exact,
                     mx::Stream stream) {
    const int n_stream = rows.shape(0), n = rows.shape(2), n_embd = exact.shape(2);
    std::vector<int32_t> slots;
    std::vector<bool> kept;
    for (int at = 0; at < n_stream; ++at) {
        for (int64_t cell = 0; cell < n; ++cell) {
            kept.push_back(is_exact(codec, call, static_cast<size_t>(at), cell));
            slots.push_back(kept.back() ? static_cast<int32_t>(exact_slot(codec.exact(), cell)) : 0);
        }
    }
    const mx::array indices =
        mx::broadcast_to(mx::array(slots.data(), {n_stream, n, 1}, mx::int32), {n_stream, n, n_embd}, stream);
    const mx::array gathered = mx::reshape(mx::take_along_axis(exact, indices, 1, stream),
                                           {n_stream, n, rows.shape(1), rows.shape(3)}, stream);
    const mx::array by_head = mx::astype(mx::transpose(gathered, {0, 2, 1, 3}, stream), rows.dtype(), stream);
    return mx::where(mx::array(kept.begin(), {n_stream, 1, n, 1}, mx::bool_), by_head, rows, stream);
}

}  // namespace

mx::array decode(const LayerCodecPtr& codec, const DecodeCall& call, const mx::array& records, mx::Dtype type,
                 const std::optional<mx::array>& exact) {
    const BlockCodec& side = codec->side(call.side);
    const auto block_bytes = static_cast<int>(side.format().block_bytes());
    if (records.ndim() != 3 || records.dtype() != mx::uint8 || records.shape(2) != block_bytes ||
        blocks_of_cells(call.n) > records.shape(1)) {
        throw std::invalid_argument("decode: records of shape " + text_of(records.shape()) + " for " +
                                    std::to_string(call.n) + " cells; a record has " + std::to_string(block_bytes) +
                                    " bytes of uint8");
    }
    const auto n_stream = static_cast<size_t>(records.shape(0));
    const mx::Shape slots{records.shape(0), static_cast<int>(codec->exact().n_slots()),
                          static_cast<int>(side.format().n_embd)};
    if (exact && (exact->shape() != slots || exact->dtype() != mx::float16 || call.length.size() != n_stream ||
                  call.first_exact.size() != n_stream))
        throw std::invalid_argument("decode: exact rows must be " + text_of(slots) + " of float16");
    const mx::Stream stream = mx::to_stream({});
    const bool gpu = runs_on_gpu(stream);
    if (gpu && !gpu_unsupported_reason(*codec).empty())
        throw std::invalid_argument("decode: " + gpu_unsupported_reason(*codec));
    std::vector<mx::array> inputs{records};
    if (exact && !gpu) inputs.push_back(mx::contiguous(*exact, false, stream));
    mx::array out({records.shape(0), codec->shape().n_head_kv, static_cast<int>(call.n), side.head_dim()}, type,
                  std::make_shared<Decode>(stream, codec, call), std::move(inputs));
    float_type_of(out, "decode: rows");
    return exact && gpu ? with_exact(*codec, call, out, *exact, stream) : out;
}

}  // namespace tq::mlx_plugin
