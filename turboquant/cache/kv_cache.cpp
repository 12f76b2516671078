#include "turboquant/cache/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <string>

namespace tq {
namespace {

Status check_size(const KvCacheParams& params, int64_t n_embd) {
    constexpr int64_t kLimit = int64_t{1} << 40;  // keeps every product of these in 64 bits
    if (params.n_cells > 0 && params.n_stream > 0 && params.n_cells <= kLimit / n_embd / params.n_stream) return {};
    return Status(Error::kInvalidArgument, "n_cells " + std::to_string(params.n_cells) + " x n_stream " +
                                               std::to_string(params.n_stream) + " is not positive or too large");
}

}  // namespace

void KvCache::Deleter::operator()(uint8_t* p) const {
    ::operator delete[](p, std::align_val_t{kRecordAlignment});
}

Result<KvCache::Plane> KvCache::create_plane(const KvCacheParams& params, Side side, const Engine& engine) {
    const int head_dim = side == Side::kKey ? params.head_dim_k : params.head_dim_v;
    auto format = RowFormat::create(params.preset, side, int64_t{params.n_head_kv} * head_dim);
    if (!format.ok()) return format.status();
    if (Status s = check_size(params, format->n_embd); !s.ok()) return s;
    auto codec = engine.make_codec(engine, format.value(), head_dim,
                                   side == Side::kKey ? params.key_scales : params.value_scales);
    if (!codec.ok()) return codec.status();
    Plane plane{std::move(codec.value()), nullptr, params.n_cells, params.n_stream, std::nullopt, {}};
    const size_t records = static_cast<size_t>(plane.n_records()) * format->block_bytes();
    const size_t bytes = records + ExactRows::bytes(params.exact, format->n_embd, params.n_cells, params.n_stream);
    plane.data.reset(static_cast<uint8_t*>(::operator new[](bytes, std::align_val_t{kRecordAlignment}, std::nothrow)));
    if (!plane.data)
        return Status(Error::kOutOfMemory, "no memory for " + std::to_string(bytes) + " bytes of packed cache");
    std::memset(plane.data.get(), 0, bytes);
    if (params.exact.any()) {
        auto* slots = reinterpret_cast<uint16_t*>(plane.data.get() + records);
        plane.exact.emplace(params.exact, format->n_embd, params.n_cells, params.n_stream, slots);
        plane.staging.resize(params.n_stream);
    }
    return plane;
}

Result<KvCache> KvCache::create(const KvCacheParams& params, const Engine& engine) {
    const int reserve = params.exact.n_reserve == kReserveByLength ? 0 : params.exact.n_reserve;
    for (int n : {params.exact.n_sink, params.exact.n_recent, reserve}) {
        if (n >= 0 && n <= kMaxExactCells) continue;
        return Status(Error::kInvalidArgument,
                      "exact cells: " + std::to_string(n) + "; allowed: 0 to " + std::to_string(kMaxExactCells));
    }
    auto keys = create_plane(params, Side::kKey, engine);
    if (!keys.ok()) return keys.status();
    auto values = create_plane(params, Side::kValue, engine);
    if (!values.ok()) return values.status();
    return KvCache(params, std::move(keys.value()), std::move(values.value()));
}

size_t KvCache::Plane::bytes() const {
    const RowFormat& format = codec->format();
    return static_cast<size_t>(n_records()) * format.block_bytes() +
           (exact ? ExactRows::bytes(exact->cells(), format.n_embd, n_cells, n_stream) : 0);
}

Blocks KvCache::Plane::blocks(int64_t stream) const {
    const size_t stride = codec->format().block_bytes();
    return {data.get() + static_cast<size_t>(stream * blocks_of_cells(n_cells)) * stride, stride, nullptr};
}

void KvCache::Plane::write(int64_t stream, int64_t cell, int64_t n, const float* rows) {
    for (int64_t i = 0; i < n; ++i) {
        // The cells of this block that are still to come.
        const int64_t at = (cell + i) % kBlockCells, rest = std::min(n - i, kBlockCells - at);
        const uint64_t rewritten = ~uint64_t{0} >> (kBlockCells - rest) << at;
        codec->encode(rows + i * codec->format().n_embd, blocks(stream), cell + i, rewritten);
    }
    if (exact) keep_exact(stream, cell, n, rows);
}

void KvCache::Plane::keep_exact(int64_t stream, int64_t cell, int64_t n, const float* rows) {
    std::vector<int64_t> cells(n);
    std::iota(cells.begin(), cells.end(), stream * n_cells + cell);
    exact->commit(stream);  // before its staging memory is written to
    staging[stream].resize(n * codec->format().n_embd);
    exact->begin(cells, staging[stream].data());
    for (int64_t i = 0; i < n; ++i) exact->store(i, rows + i * codec->format().n_embd);
}

void KvCache::Plane::read(int64_t stream, int64_t cell, int64_t n, float* rows) const {
    for (int64_t done = 0; done < n;) {
        const int64_t first = (cell + done) % kBlockCells, count = std::min(n - done, kBlockCells - first);
        codec->decode_block(blocks(stream), (cell + done) / kBlockCells, static_cast<int>(first),
                            static_cast<int>(count), rows + done * codec->format().n_embd);
        done += count;
    }
}

void KvCache::Plane::copy(int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell, int64_t n) {
    const bool backwards = from_stream == to_stream && from_cell < to_cell;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t at = backwards ? n - 1 - i : i;
        codec->copy(blocks(from_stream), from_cell + at, blocks(to_stream), to_cell + at);
    }
    if (!exact) return;
    exact->commit(from_stream);
    copy_exact(from_stream * n_cells + from_cell, to_stream * n_cells + to_cell, n);
}

// Cells are numbered over all streams. Through a copy, since a slot may be given to another row while rows are adopted.
void KvCache::Plane::copy_exact(int64_t from, int64_t to, int64_t n) {
    const int64_t n_embd = codec->format().n_embd;
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
    for (int64_t cell = length; cell < old_length; ++cell) codec->clear(blocks(stream), cell);
    for (int64_t block = length <= kUncenteredCells ? 0 : blocks_of_cells(length); block < blocks_of_cells(n_cells);
         ++block)
        codec->reset_center(blocks(stream).at(block));
    if (exact) exact->forget(stream * n_cells + length, std::max<int64_t>(0, old_length - length));
}

void KvCache::Plane::clear() {
    std::memset(data.get(), 0, static_cast<size_t>(n_records()) * codec->format().block_bytes());
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
