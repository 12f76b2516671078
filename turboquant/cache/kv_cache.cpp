#include "turboquant/cache/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <string>

namespace tq {

void KvCache::Deleter::operator()(uint8_t* p) const {
    ::operator delete[](p, std::align_val_t{kPlaneAlignment});
}

Result<KvCache::Plane> KvCache::create_plane(const KvCacheParams& params, Side side, Isa isa) {
    const int head_dim = side == Side::kKey ? params.head_dim_k : params.head_dim_v;
    auto layout = PackedLayout::create(params.preset, side, int64_t{params.n_head_kv} * head_dim, params.n_cells,
                                       params.n_stream);
    if (!layout.ok()) return layout.status();
    auto codec =
        RowCodec::create(layout.value(), head_dim, isa, side == Side::kKey ? params.key_scales : params.value_scales);
    if (!codec.ok()) return codec.status();
    const size_t bytes =
        layout->bytes() + ExactRows::bytes(params.exact, layout->n_embd, layout->n_cells, layout->n_stream);
    auto* data = static_cast<uint8_t*>(::operator new[](bytes, std::align_val_t{kPlaneAlignment}, std::nothrow));
    if (data == nullptr)
        return Status(Error::kOutOfMemory, "no memory for " + std::to_string(bytes) + " bytes of packed cache");
    std::memset(data, 0, bytes);
    Plane plane{std::move(codec.value()), std::unique_ptr<uint8_t[], Deleter>(data), std::nullopt, {}};
    if (params.exact.any()) {
        auto* slots = reinterpret_cast<uint16_t*>(data + layout->bytes());
        plane.exact.emplace(params.exact, layout->n_embd, layout->n_cells, layout->n_stream, slots);
        plane.staging.resize(layout->n_stream);
    }
    return plane;
}

Result<KvCache> KvCache::create(const KvCacheParams& params, Isa isa) {
    const int reserve = params.exact.n_reserve == kReserveByLength ? 0 : params.exact.n_reserve;
    for (int n : {params.exact.n_sink, params.exact.n_recent, reserve}) {
        if (n >= 0 && n <= kMaxExactCells) continue;
        return Status(Error::kInvalidArgument,
                      "exact cells: " + std::to_string(n) + "; allowed: 0 to " + std::to_string(kMaxExactCells));
    }
    auto keys = create_plane(params, Side::kKey, isa);
    if (!keys.ok()) return keys.status();
    auto values = create_plane(params, Side::kValue, isa);
    if (!values.ok()) return values.status();
    return KvCache(params, std::move(keys.value()), std::move(values.value()));
}

size_t KvCache::Plane::bytes() const {
    const PackedLayout& layout = codec.layout();
    return layout.bytes() +
           (exact ? ExactRows::bytes(exact->cells(), layout.n_embd, layout.n_cells, layout.n_stream) : 0);
}

void KvCache::Plane::write(int64_t stream, int64_t cell, int64_t n, const float* rows) {
    for (int64_t i = 0; i < n; ++i) {
        // The cells of this block that are still to come.
        const int64_t at = (cell + i) % kBlockCells, rest = std::min(n - i, kBlockCells - at);
        const uint64_t rewritten = ~uint64_t{0} >> (kBlockCells - rest) << at;
        codec.encode(rows + i * codec.layout().n_embd, data.get(), stream, cell + i, rewritten);
    }
    if (exact) keep_exact(stream, cell, n, rows);
}

void KvCache::Plane::keep_exact(int64_t stream, int64_t cell, int64_t n, const float* rows) {
    std::vector<int64_t> cells(n);
    std::iota(cells.begin(), cells.end(), stream * codec.layout().n_cells + cell);
    exact->commit(stream);  // before its staging memory is written to
    staging[stream].resize(n * codec.layout().n_embd);
    exact->begin(cells, staging[stream].data());
    for (int64_t i = 0; i < n; ++i) exact->store(i, rows + i * codec.layout().n_embd);
}

void KvCache::Plane::read(int64_t stream, int64_t cell, int64_t n, float* rows) const {
    for (int64_t done = 0; done < n;) {
        const int64_t first = (cell + done) % kBlockCells, count = std::min(n - done, kBlockCells - first);
        codec.decode_block(data.get(), stream, (cell + done) / kBlockCells, static_cast<int>(first),
                           static_cast<int>(count), rows + done * codec.layout().n_embd);
        done += count;
    }
}

void KvCache::Plane::copy(int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell, int64_t n) {
    const bool backwards = from_stream == to_stream && from_cell < to_cell;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t at = backwards ? n - 1 - i : i;
        codec.copy(data.get(), from_stream, from_cell + at, to_stream, to_cell + at);
    }
    if (!exact) return;
    exact->commit(from_stream);
    copy_exact(from_stream * codec.layout().n_cells + from_cell, to_stream * codec.layout().n_cells + to_cell, n);
}

// Cells are numbered over all streams. Through a copy, since a slot may be given to another row while rows are adopted.
void KvCache::Plane::copy_exact(int64_t from, int64_t to, int64_t n) {
    const int64_t n_embd = codec.layout().n_embd;
    std::vector<int64_t> cells;
    std::vector<uint16_t> rows;
    for (int64_t i = 0; i < n; ++i) {
        const uint16_t* row = exact->find(from + i);
        if (!row) continue;
        cells.push_back(to + i);
        rows.insert(rows.end(), row, row + n_embd);
    }
    exact->forget(to, n);
    for (size_t i = 0; i < cells.size(); ++i) {
        if (uint16_t* slot = exact->adopt(cells[i]))
            std::copy_n(rows.data() + static_cast<int64_t>(i) * n_embd, n_embd, slot);
    }
}

void KvCache::Plane::truncate(int64_t stream, int64_t length, int64_t old_length) {
    for (int64_t cell = length; cell < old_length; ++cell) codec.clear(data.get(), stream, cell);
    codec.reset_centers(data.get(), stream, length <= kUncenteredCells ? 0 : (length + kBlockCells - 1) / kBlockCells);
    if (exact) exact->forget(stream * codec.layout().n_cells + length, std::max<int64_t>(0, old_length - length));
}

void KvCache::Plane::clear() {
    std::memset(data.get(), 0, codec.layout().bytes());
    if (exact) exact->forget_all();
}

Status KvCache::check(int64_t stream, int64_t cell, int64_t n) const {
    if (stream < 0 || stream >= params_.n_stream) {
        return Status(Error::kOutOfRange,
                      "stream " + std::to_string(stream) + " is not in 0.." + std::to_string(params_.n_stream - 1));
    }
    if (cell < 0 || n < 0 || cell > params_.n_cells - n) {
        return Status(Error::kOutOfRange, "cells " + std::to_string(cell) + " + " + std::to_string(n) + " exceed the " +
                                              std::to_string(params_.n_cells) + " cells of a stream");
    }
    return {};
}

Status KvCache::write(int64_t stream, int64_t cell, int64_t n, const float* k, const float* v) {
    if (Status s = check(stream, cell, n); !s.ok()) return s;
    keys_.write(stream, cell, n, k);
    values_.write(stream, cell, n, v);
    lengths_[stream] = std::max(lengths_[stream], cell + n);
    return {};
}

Status KvCache::append(int64_t stream, int64_t n, const float* k, const float* v) {
    if (Status s = check(stream, 0, 0); !s.ok()) return s;
    return write(stream, lengths_[stream], n, k, v);
}

Status KvCache::read(int64_t stream, int64_t cell, int64_t n, float* k, float* v) const {
    if (Status s = check(stream, cell, n); !s.ok()) return s;
    if (k) keys_.read(stream, cell, n, k);
    if (v) values_.read(stream, cell, n, v);
    return {};
}

Status KvCache::copy(int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell, int64_t n) {
    if (Status s = check(from_stream, from_cell, n); !s.ok()) return s;
    if (Status s = check(to_stream, to_cell, n); !s.ok()) return s;
    keys_.copy(from_stream, from_cell, to_stream, to_cell, n);
    values_.copy(from_stream, from_cell, to_stream, to_cell, n);
    lengths_[to_stream] = std::max(lengths_[to_stream], to_cell + n);
    return {};
}

Status KvCache::truncate(int64_t stream, int64_t length) {
    if (Status s = check(stream, length, 0); !s.ok()) return s;
    keys_.truncate(stream, length, lengths_[stream]);
    values_.truncate(stream, length, lengths_[stream]);
    lengths_[stream] = std::min(lengths_[stream], length);
    return {};
}

Status KvCache::trim_front(int64_t stream, int64_t n) {
    if (Status s = check(stream, n, 0); !s.ok()) return s;
    const int64_t kept = std::max<int64_t>(0, lengths_[stream] - n);
    if (Status s = copy(stream, n, stream, 0, kept); !s.ok()) return s;
    return truncate(stream, kept);
}

void KvCache::clear() {
    keys_.clear();
    values_.clear();
    std::fill(lengths_.begin(), lengths_.end(), 0);
}

}  // namespace tq
