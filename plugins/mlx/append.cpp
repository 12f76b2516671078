#include "append.h"

#include <algorithm>
#include <cstring>

#include <mlx/backend/cpu/encoder.h>

#include "device.h"
#include "exact_graph.h"
#include "nodes.h"
#include "turboquant/cache/exact_rows.h"
#include "workers.h"

namespace tq::mlx_plugin {
namespace {

// New rows, contiguous (n_stream, n_head_kv, n_rows, head_dim), read head by head as floats.
struct NewRows {
    const char* data;
    FloatType type;
    int64_t n_head_kv, n_rows, head_dim;

    // Dims [first, first + n) of a row, whole heads, to their places in `row`.
    void read(int64_t stream, int64_t index, const BlockCodec::Slice& slice, float* row) const {
        for (int64_t dim = slice.first; dim < slice.first + slice.n; dim += head_dim) {
            const int64_t head = dim / head_dim;
            const int64_t at = ((stream * n_head_kv + head) * n_rows + index) * head_dim;
            to_floats(data + static_cast<size_t>(at) * bytes_of(type), type, head_dim, row + dim);
        }
    }
};

// Rows of one slice that one thread stores, in the order of their cells.
struct Item {
    int64_t stream;
    int slice;
    int64_t first, end;  // rows
};

// Slices are independent of each other. Blocks are too, but not those of centered keys.
std::vector<Item> items_of(const BlockCodec& codec, const std::vector<StreamRows>& streams) {
    std::vector<Item> items;
    for (size_t stream = 0; stream < streams.size(); ++stream) {
        const auto& [cell, n] = streams[stream];
        for (int64_t first = 0, end; first < n; first = end) {
            end = codec.format().centered() ? n : std::min(n, first + kBlockCells - (cell + first) % kBlockCells);
            for (int slice = 0; slice < codec.n_slices(); ++slice)
                items.push_back({static_cast<int64_t>(stream), slice, first, end});
        }
    }
    return items;
}

void encode(const BlockCodec& codec, const Item& item, int64_t cell, const NewRows& rows, const Blocks& blocks,
            float* row) {
    for (int64_t i = item.first; i < item.end; ++i) {
        const int64_t at = cell + i, in_block = at % kBlockCells;
        const int64_t rest = std::min(item.end - i, kBlockCells - in_block);
        const uint64_t rewritten = ~uint64_t{0} >> (kBlockCells - rest) << in_block;  // cells that are still to come
        rows.read(item.stream, i, codec.slice_at(item.slice), row);
        codec.encode_slice(row, blocks, at, item.slice, rewritten);
    }
}

// The records before, with zeros behind them where there are more now.
void copy_records(const uint8_t* from, size_t from_bytes, uint8_t* to, size_t to_bytes, int64_t n_stream) {
    for (int64_t stream = 0; stream < n_stream; ++stream, from += from_bytes, to += to_bytes) {
        if (from_bytes > 0) std::memcpy(to, from, from_bytes);
        std::memset(to + from_bytes, 0, to_bytes - from_bytes);
    }
}

}  // namespace

bool Append::takes_over(const mx::array& records) const {
    return records.shape(1) == call_.n_blocks && (call_.in_place || records.is_donatable()) && !records.is_tracer();
}

void Append::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
    const mx::array &records = inputs[0], &rows = inputs[1];
    mx::array& out = outputs[0];
    check_contiguous(records, "append: records");
    const bool in_place = takes_over(records);
    if (in_place)
        out.copy_shared_buffer(records);
    else
        allocate_aligned(out);
    const NewRows new_rows{rows.data<char>(), float_type_of(rows, "rows"), rows.shape(1), rows.shape(2), rows.shape(3)};

    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.set_input_array(records);
    encoder.set_input_array(rows);
    encoder.set_output_array(out);
    const size_t block_bytes = static_cast<size_t>(out.shape(2));
    const size_t from_bytes = static_cast<size_t>(records.shape(1)) * block_bytes;
    const size_t to_bytes = static_cast<size_t>(out.shape(1)) * block_bytes;
    const uint8_t* from = in_place || from_bytes == 0 ? nullptr : records.data<uint8_t>();
    encoder.dispatch([=, codec = codec_, call = call_, to = out.data<uint8_t>()] {
        const auto n_stream = static_cast<int64_t>(call.streams.size());
        if (!in_place) copy_records(from, from_bytes, to, to_bytes, n_stream);
        const BlockCodec& side = codec->side(call.side);
        const std::vector<Item> items = items_of(side, call.streams);
        std::vector<std::vector<float>> row(n_workers());
        run_items(static_cast<int64_t>(items.size()), [&](int64_t i, int thread) {
            const Item& item = items[i];
            row[thread].resize(side.format().n_embd);
            const Blocks blocks{to + static_cast<size_t>(item.stream) * to_bytes, block_bytes};
            encode(side, item, call.streams[item.stream].cell, new_rows, blocks, row[thread].data());
        });
    });
    if (outputs.size() == 1) return;

    const mx::array& exact = inputs[2];
    mx::array& kept = outputs[1];
    kept.set_data(mx::allocator::malloc(kept.nbytes()));
    encoder.set_input_array(exact);
    encoder.set_output_array(kept);
    encoder.dispatch([=, codec = codec_, call = call_, before = exact.data<uint16_t>(), after = kept.data<uint16_t>(),
                      bytes = kept.nbytes()] {
        std::memcpy(after, before, bytes);
        const int64_t n_embd = codec->side(call.side).format().n_embd;
        std::vector<float> row(n_embd);
        for (size_t stream = 0; stream < call.streams.size(); ++stream) {
            const auto& [cell, n] = call.streams[stream];
            uint16_t* slots = after + static_cast<int64_t>(stream) * codec->exact().n_slots() * n_embd;
            for (int64_t i = 0; i < n; ++i) {
                const bool is_sink = cell + i < codec->exact().n_sink;
                if (!is_sink && i < n - codec->exact().n_kept()) continue;  // a later row takes its slot
                new_rows.read(static_cast<int64_t>(stream), i, {0, static_cast<int>(n_embd)}, row.data());
                ExactRows::convert(row.data(), n_embd, slots + exact_slot(codec->exact(), cell + i) * n_embd);
            }
        }
    });
}

namespace {

// Records that a GPU's node may write to, which cannot copy them itself.
mx::array writable_records(const AppendCall& call, const mx::array& records, mx::Stream stream) {
    const int more = static_cast<int>(call.n_blocks) - records.shape(1);
    if (more > 0)
        return mx::concatenate({records, mx::zeros({records.shape(0), more, records.shape(2)}, mx::uint8, stream)}, 1,
                               stream);
    // A sum takes over the memory of what nobody else has, and copies anything else.
    return call.in_place ? records : mx::add(records, mx::array(0, mx::uint8), stream);
}

Appended append_on_gpu(const LayerCodecPtr& codec, const AppendCall& call, const mx::array& records,
                       const mx::array& rows, const std::optional<mx::array>& exact, mx::Stream stream) {
    if (std::string reason = gpu_unsupported_reason(*codec); !reason.empty())
        throw std::invalid_argument("append: " + reason);
    const mx::array writable = writable_records(call, records, stream);
    Appended appended{mx::array(writable.shape(), mx::uint8, std::make_shared<Append>(stream, codec, call),
                                {writable, mx::contiguous(rows, false, stream)}),
                      {}};
    if (exact) appended.exact = keep_exact(codec->exact(), call, *exact, rows, stream);
    return appended;
}

void check_shapes(const LayerCodec& codec, const AppendCall& call, const mx::array& records, const mx::array& rows) {
    const LayerShape& shape = codec.shape();
    const int head_dim = shape.head_dim(call.side);
    const auto n_stream = static_cast<int>(call.streams.size());
    const auto block_bytes = static_cast<int>(codec.side(call.side).format().block_bytes());
    if (rows.ndim() != 4 || rows.shape(0) != n_stream || rows.shape(1) != shape.n_head_kv ||
        rows.shape(3) != head_dim) {
        throw std::invalid_argument("append: rows of shape " + text_of(rows.shape()) + "; this cache takes (" +
                                    std::to_string(n_stream) + ", " + std::to_string(shape.n_head_kv) + ", n, " +
                                    std::to_string(head_dim) + ")");
    }
    if (records.ndim() != 3 || records.dtype() != mx::uint8 || records.shape(0) != n_stream ||
        records.shape(1) > call.n_blocks || records.shape(2) != block_bytes) {
        throw std::invalid_argument("append: records of shape " + text_of(records.shape()) + "; this cache takes (" +
                                    std::to_string(n_stream) + ", at most " + std::to_string(call.n_blocks) + ", " +
                                    std::to_string(block_bytes) + ") of uint8");
    }
    for (const auto& [cell, n] : call.streams) {
        if (cell >= 0 && n >= 0 && n <= rows.shape(2) && blocks_of_cells(cell + n) <= call.n_blocks) continue;
        throw std::invalid_argument("append: " + std::to_string(n) + " rows from cell " + std::to_string(cell) +
                                    " on; there are " + std::to_string(rows.shape(2)) + " rows and room for " +
                                    std::to_string(call.n_blocks * kBlockCells) + " cells");
    }
}

}  // namespace

Appended append(const LayerCodecPtr& codec, const AppendCall& call, const mx::array& records, const mx::array& rows,
                const std::optional<mx::array>& exact) {
    float_type_of(rows, "append: rows");
    check_shapes(*codec, call, records, rows);
    const mx::Stream stream = mx::to_stream({});
    const mx::Shape slots{records.shape(0), static_cast<int>(codec->exact().n_slots()),
                          static_cast<int>(codec->side(call.side).format().n_embd)};
    if (codec->exact().any() != exact.has_value() ||
        (exact && (exact->shape() != slots || exact->dtype() != mx::float16)))
        throw std::invalid_argument("append: exact rows must be of shape " + text_of(slots) + " and float16");
    if (runs_on_gpu(stream)) return append_on_gpu(codec, call, records, rows, exact, stream);

    const mx::Shape shape{records.shape(0), static_cast<int>(call.n_blocks), records.shape(2)};
    auto node = std::make_shared<Append>(stream, codec, call);
    const mx::array contiguous = mx::contiguous(rows, false, stream);
    if (!exact) return {mx::array(shape, mx::uint8, std::move(node), {records, contiguous}), {}};
    std::vector<mx::array> made = mx::array::make_arrays({shape, slots}, {mx::uint8, mx::float16}, std::move(node),
                                                         {records, contiguous, mx::contiguous(*exact, false, stream)});
    return {made[0], made[1]};
}

}  // namespace tq::mlx_plugin
