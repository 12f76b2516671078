#include "exact_streams.h"

#include <algorithm>
#include <cstring>

#include "append.h"

namespace tq::mlx_plugin {
namespace {

// A mask may hide some of the newest rows, and then the window reaches further back, into the reserve. Without one it
// never does, and fewer rows are to be copied.
ExactCells rows_needed(ExactCells exact, bool has_mask) {
    if (!has_mask) exact.n_reserve = 0;
    return exact;
}

int64_t most_cells(const std::vector<StreamCells>& streams) {
    int64_t most = 1;
    for (const StreamCells& stream : streams) most = std::max(most, stream.n_kv);
    return most;
}

}  // namespace

ExactStreams::Copy::Copy(ExactIndex& index, int64_t n_embd, int64_t n_staged)
    : slots(static_cast<size_t>(index.cells().n_slots() * index.n_stream() * n_embd)),
      staging(static_cast<size_t>(n_staged * n_embd)),
      rows(index, n_embd, slots.data()) {}

ExactStreams::ExactStreams(const LayerCodec& codec, const std::vector<StreamCells>& streams, int64_t n_tokens,
                           bool has_mask, const ExactSource& keys, const ExactSource& values)
    : n_cells_(most_cells(streams)),
      index_(rows_needed(codec.exact(), has_mask), n_cells_, static_cast<int64_t>(streams.size())),
      keys_(index_, codec.side(Side::kKey).format().n_embd, static_cast<int64_t>(streams.size()) * n_tokens),
      values_(index_, codec.side(Side::kValue).format().n_embd, static_cast<int64_t>(streams.size()) * n_tokens) {
    const ExactCells& exact = codec.exact();
    for (size_t stream = 0; stream < streams.size(); ++stream) {
        const auto& [n_kv, n, first_exact] = streams[stream];
        const int64_t first = static_cast<int64_t>(stream) * n_cells_, old = n_kv - n;
        for (int64_t cell = 0; cell < std::min<int64_t>(exact.n_sink, old); ++cell) before_.push_back(first + cell);
        const int64_t window = std::max({int64_t{exact.n_sink}, first_exact, old - index_.cells().n_kept()});
        for (int64_t cell = window; cell < old; ++cell) before_.push_back(first + cell);
        for (int64_t i = 0; i < n_tokens; ++i) cells_.push_back(i < n ? first + old + i : -1);
    }
    for (int64_t cell : before_) index_.adopt(cell);
    index_.begin(cells_);
    fill(keys_, codec, Side::kKey, n_tokens, keys);
    fill(values_, codec, Side::kValue, n_tokens, values);
}

void ExactStreams::fill(Copy& copy, const LayerCodec& codec, Side side, int64_t n_tokens,
                        const ExactSource& source) const {
    const int64_t n_embd = codec.side(side).format().n_embd, head_dim = codec.shape().head_dim(side);
    for (int64_t cell : before_) {
        uint16_t* row = copy.rows.find(cell);
        if (!row) continue;
        const int64_t slot = cell / n_cells_ * codec.exact().n_slots() + exact_slot(codec.exact(), cell % n_cells_);
        std::memcpy(row, source.before + slot * n_embd, sizeof(uint16_t) * static_cast<size_t>(n_embd));
    }
    copy.rows.stage(cells_, copy.staging.data());
    std::vector<float> row(n_embd);
    for (size_t i = 0; i < cells_.size(); ++i) {
        if (cells_[i] < 0) continue;
        const int64_t stream = static_cast<int64_t>(i) / n_tokens, token = static_cast<int64_t>(i) % n_tokens;
        for (int64_t head = 0; head < codec.shape().n_head_kv; ++head) {
            const int64_t at = ((stream * codec.shape().n_head_kv + head) * n_tokens + token) * head_dim;
            to_floats(source.tokens + static_cast<size_t>(at) * bytes_of(source.type), source.type, head_dim,
                      row.data() + head * head_dim);
        }
        copy.rows.store(static_cast<int64_t>(i), row.data());
    }
}

}  // namespace tq::mlx_plugin
