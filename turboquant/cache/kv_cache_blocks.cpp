// KvCache: cells and blocks that are copied, shared and given back.
#include <algorithm>
#include <cstring>

#include "turboquant/cache/kv_cache.h"

namespace tq {

Status KvCache::copy(int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell, int64_t n) {
    if (Status s = check(from_stream, from_cell, n); !s.ok()) return s;
    if (Status s = check(to_stream, to_cell, n); !s.ok()) return s;
    if (n == 0) return {};
    const int64_t first = to_cell / kBlockCells;
    if (Status s = own(to_stream, first, blocks_of_cells(to_cell + n) - first); !s.ok()) return s;
    for_layers(
        [&](Side& side, int64_t layer) { copy_cells(side, layer, from_stream, from_cell, to_stream, to_cell, n); });
    lengths_[to_stream] = std::max(lengths_[to_stream], to_cell + n);
    if (!exact_) return {};
    commit_exact(from_stream);
    copy_exact(from_stream * params_.n_cells + from_cell, to_stream * params_.n_cells + to_cell, n);
    return {};
}

// Blocks that go as a whole to the same place in another stream are copied as bytes, other cells one by one.
void KvCache::copy_cells(Side& side, int64_t layer, int64_t from_stream, int64_t from_cell, int64_t to_stream,
                         int64_t to_cell, int64_t n) {
    const BlockCodec& codec = side.codec(layer);
    const Blocks from = blocks(side, layer, from_stream), to = blocks(side, layer, to_stream);
    const bool backwards = from_stream == to_stream && from_cell < to_cell;
    for (int64_t i = 0; i < n;) {
        const int64_t at = backwards ? n - 1 - i : i, target = to_cell + at;
        if (from_stream != to_stream && from_cell == to_cell && target % kBlockCells == 0 && n - i >= kBlockCells) {
            std::memcpy(to.at(target / kBlockCells), from.at(target / kBlockCells), to.stride);
            i += kBlockCells;
        } else {
            codec.copy(from, from_cell + at, to, target);
            ++i;
        }
    }
}

// ---- exact rows; cells are numbered over all streams

// Those of cells [first, first + n) that have exact rows in slots.
std::vector<int64_t> KvCache::exact_cells(int64_t first, int64_t n) const {
    std::vector<int64_t> cells;
    for (int64_t cell = first; cell < first + n; ++cell)
        if (!exact_->find(cell).none()) cells.push_back(cell);
    return cells;
}

// Rows of cells that exact_cells() gave: [side][layer][cell].
std::vector<uint16_t> KvCache::exact_rows(const std::vector<int64_t>& cells) {
    std::vector<uint16_t> rows;
    for_layers([&](Side& side, int64_t layer) {
        for (const int64_t cell : cells) {
            const uint16_t* row = side.layers[layer].exact->find(cell);
            rows.insert(rows.end(), row, row + side.format().n_embd);
        }
    });
    return rows;
}

// Makes these the newest rows of their streams. rows: as exact_rows() gives them, of any alignment. Cells below 0 are
// left out.
void KvCache::adopt_exact(const std::vector<int64_t>& cells, const uint8_t* rows) {
    for (size_t c = 0; c < cells.size(); ++c) {
        if (cells[c] < 0) continue;
        exact_->adopt(cells[c]);
        follow_exact();
        const uint8_t* of_layer = rows;
        for_layers([&](Side& side, int64_t layer) {
            const size_t row_bytes = sizeof(uint16_t) * static_cast<size_t>(side.format().n_embd);
            uint16_t* slot = side.layers[layer].exact->find(cells[c]);
            if (slot) std::memcpy(slot, of_layer + c * row_bytes, row_bytes);
            of_layer += cells.size() * row_bytes;
        });
    }
}

// Through a copy, since a slot may be given to another row while rows are adopted.
void KvCache::copy_exact(int64_t from, int64_t to, int64_t n) {
    std::vector<int64_t> cells = exact_cells(from, n);
    const std::vector<uint16_t> rows = exact_rows(cells);
    exact_->forget(to, n);
    for (int64_t& cell : cells) cell += to - from;
    adopt_exact(cells, reinterpret_cast<const uint8_t*>(rows.data()));
}

// ---- blocks

Status KvCache::fork(int64_t from_stream, int64_t to_stream, int64_t n) {
    if (Status s = check(from_stream, 0, n); !s.ok()) return s;
    if (Status s = check(to_stream, 0, n); !s.ok()) return s;
    if (n > lengths_[from_stream]) {
        return Status(Error::kOutOfRange, "a fork of " + std::to_string(n) + " cells from a stream of " +
                                              std::to_string(lengths_[from_stream]));
    }
    if (from_stream == to_stream) return truncate(to_stream, n);
    const bool part = n % kBlockCells != 0;  // the last block is the stream's own, as cells behind n are to be dropped
    if (part && n_free_records() + blocks_.n_owned(to_stream) == 0)
        return Status(Error::kOutOfMemory, "no block records left for the last block of a fork");
    blocks_.share(from_stream, to_stream, blocks_of_cells(n));
    lengths_[to_stream] = n;
    if (part) {
        if (Status s = own(to_stream, n / kBlockCells, 1); !s.ok()) return s;
        clear_cells(to_stream, n, blocks_of_cells(n) * kBlockCells);
    }
    if (!exact_) return {};
    commit_exact(from_stream);
    exact_->forget(to_stream * params_.n_cells, params_.n_cells);
    copy_exact(from_stream * params_.n_cells, to_stream * params_.n_cells, n);
    return {};
}

// Cells of blocks that are the stream's own hold nothing from now on.
void KvCache::clear_cells(int64_t stream, int64_t begin, int64_t end) {
    for_layers([&](Side& side, int64_t layer) {
        const Blocks target = blocks(side, layer, stream);
        for (int64_t cell = begin; cell < std::min(end, params_.n_cells); ++cell) side.codec(layer).clear(target, cell);
        if (begin <= kUncenteredCells && begin < end) side.codec(layer).reset_center(target.at(0));
    });
}

Status KvCache::truncate(int64_t stream, int64_t length) {
    if (Status s = check(stream, length, 0); !s.ok()) return s;
    const int64_t block_end = blocks_of_cells(length) * kBlockCells, end = std::min(lengths_[stream], block_end);
    if (length < end) {
        if (Status s = own(stream, length / kBlockCells, 1); !s.ok()) return s;
        clear_cells(stream, length, end);
    }
    blocks_.release(stream, blocks_of_cells(length));
    if (exact_) exact_->forget(stream * params_.n_cells + length, params_.n_cells - length);
    lengths_[stream] = std::min(lengths_[stream], length);
    return {};
}

Status KvCache::trim_front(int64_t stream, int64_t n) {
    if (Status s = check(stream, n, 0); !s.ok()) return s;
    const int64_t kept = std::max<int64_t>(0, lengths_[stream] - n);
    if (Status s = copy(stream, n, stream, 0, kept); !s.ok()) return s;
    return truncate(stream, kept);
}

void KvCache::clear_stream(int64_t stream) {
    blocks_.release(stream, 0);
    lengths_[stream] = 0;
    if (exact_) exact_->forget(stream * params_.n_cells, params_.n_cells);
}

void KvCache::clear() {
    for (int64_t stream = 0; stream < params_.n_stream; ++stream) clear_stream(stream);
    if (exact_) exact_->forget_all();
}

Status KvCache::grow(int64_t n_records) {
    if (n_records >= int64_t{1} << 31)
        return Status(Error::kInvalidArgument,
                      "n_records is " + std::to_string(n_records) + "; allowed: up to 2^31 - 1");
    if (n_records <= this->n_records()) return {};
    std::vector<Memory> grown;
    for (const Side* side : {&keys_, &values_}) {
        const size_t before = static_cast<size_t>(blocks_.n_records()) * side->block_bytes();
        const size_t bytes = static_cast<size_t>(n_records + 1) * side->block_bytes();
        for (const Layer& layer : side->layers) {
            Memory& memory = grown.emplace_back(allocate_copy(layer.records.get(), before, bytes));
            if (!memory) {
                return Status(Error::kOutOfMemory, "no memory for " + std::to_string(bytes) + " bytes of packed cache");
            }
        }
    }
    size_t i = 0;
    for_layers([&](Side& side, int64_t layer) { side.layers[layer].records = std::move(grown[i++]); });
    blocks_.grow(n_records + 1);
    return {};
}

}  // namespace tq
