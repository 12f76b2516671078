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
void copy_records(const Append::Records& records, int64_t n_stream) {
    for (int64_t stream = 0; stream < n_stream; ++stream) {
        uint8_t* to = records.to + static_cast<size_t>(stream) * records.to_bytes;
        if (records.from_bytes > 0)
            std::memcpy(to, records.from + static_cast<size_t>(stream) * records.from_bytes, records.from_bytes);
        std::memset(to + records.from_bytes, 0, records.to_bytes - records.from_bytes);
    }
}

void store_rows(const LayerCodec& codec, const AppendCall& call, const NewRows& rows, const Append::Records& records) {
    const BlockCodec& side = codec.side(call.side);
    const std::vector<Item> items = items_of(side, call.streams);
    std::vector<std::vector<float>> row(n_workers());  // of each thread
    run_items(static_cast<int64_t>(items.size()), [&](int64_t i, int thread) {
        const Item& item = items[i];
        row[thread].resize(side.format().n_embd);
        const Blocks blocks{records.to + static_cast<size_t>(item.stream) * records.to_bytes, records.block_bytes};
        encode(side, item, call.streams[item.stream].cell, rows, blocks, row[thread].data());
    });
}

// slots: (n_stream, n_slots, n_embd).
void keep_rows(const LayerCodec& codec, const AppendCall& call, const NewRows& rows, uint16_t* slots) {
    const int64_t n_embd = codec.side(call.side).format().n_embd;
    std::vector<float> row(n_embd);
    for (size_t stream = 0; stream < call.streams.size(); ++stream, slots += codec.exact().n_slots() * n_embd) {
        const auto& [cell, n] = call.streams[stream];
        for (int64_t i = 0; i < n; ++i) {
            const bool is_sink = cell + i < codec.exact().n_sink;
            if (!is_sink && i < n - codec.exact().n_kept()) continue;  // a later row takes its slot
            rows.read(static_cast<int64_t>(stream), i, {0, static_cast<int>(n_embd)}, row.data());
            ExactRows::convert(row.data(), n_embd, slots + exact_slot(codec.exact(), cell + i) * n_embd);
        }
    }
}

}  // namespace

bool Append::takes_over(const mx::array& records) const {
    return records.shape(1) == call_.n_blocks && (call_.in_place || records.is_donatable()) && !records.is_tracer();
}

void Append::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
    check_contiguous(inputs[0], "append: records");
    const mx::array& rows = inputs[1];
    const NewRows new_rows{rows.data<char>(), float_type_of(rows, "rows"), rows.shape(1), rows.shape(2), rows.shape(3)};
    auto& encoder = mx::cpu::get_command_encoder(stream());
    for (const mx::array& input : inputs) encoder.set_input_array(input);
    for (mx::array& output : outputs) encoder.set_output_array(output);

    encoder.dispatch([codec = codec_, call = call_, new_rows, work = records_of(inputs[0], outputs[0])] {
        if (!work.in_place) copy_records(work, static_cast<int64_t>(call.streams.size()));
        store_rows(*codec, call, new_rows, work);
    });
    if (outputs.size() == 1) return;
    outputs[1].set_data(mx::allocator::malloc(outputs[1].nbytes()));
    encoder.dispatch([codec = codec_, call = call_, new_rows, before = inputs[2].data<uint16_t>(),
                      after = outputs[1].data<uint16_t>(), bytes = outputs[1].nbytes()] {
        std::memcpy(after, before, bytes);
        keep_rows(*codec, call, new_rows, after);
    });
}

// Gives `out` its memory.
Append::Records Append::records_of(const mx::array& records, mx::array& out) const {
    Records made;
    made.block_bytes = static_cast<size_t>(out.shape(2));
    made.from_bytes = static_cast<size_t>(records.shape(1)) * made.block_bytes;
    made.to_bytes = static_cast<size_t>(out.shape(1)) * made.block_bytes;
    made.in_place = takes_over(records);
    if (made.in_place)
        out.copy_shared_buffer(records);
    else
        allocate_aligned(out);
    made.from = records.data<uint8_t>();
    made.to = out.data<uint8_t>();
    return made;
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
