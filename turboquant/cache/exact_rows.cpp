#include "turboquant/cache/exact_rows.h"

#include <algorithm>
#include <cstring>

#include "turboquant/base/half.h"

namespace tq {
namespace {

constexpr float kLargestHalf = 65504;

uint16_t to_half(float x) {
    return x == x ? float_to_half(std::clamp(x, -kLargestHalf, kLargestHalf)) : uint16_t{0};
}

// -1 if there is none.
int64_t index_of(const std::vector<int64_t>& cells, int64_t cell) {
    const auto found = std::find(cells.begin(), cells.end(), cell);
    return found == cells.end() ? -1 : found - cells.begin();
}

}  // namespace

size_t ExactRows::bytes(const ExactCells& cells, int64_t n_embd, int64_t n_stream) {
    return sizeof(uint16_t) * static_cast<size_t>(cells.n_slots() * n_embd * n_stream);
}

ExactRows::ExactRows(const ExactCells& cells, int64_t n_embd, int64_t n_cells, int64_t n_stream, uint16_t* slots)
    : cells_(cells), n_embd_(n_embd), n_cells_(n_cells), slots_(slots), streams_(n_stream), kept_(n_cells * n_stream, false) {
    for (Stream& stream : streams_) {
        stream.sink_cells.assign(cells.n_sink, -1);
        stream.recent_cells.assign(cells.n_recent, -1);
    }
}

uint16_t* ExactRows::sink_slot(int64_t stream, int64_t cell) const { return slots_ + (stream * cells_.n_slots() + cell) * n_embd_; }

uint16_t* ExactRows::recent_slot(int64_t stream, int64_t number) const {
    return slots_ + (stream * cells_.n_slots() + cells_.n_sink + number % cells_.n_recent) * n_embd_;
}

void ExactRows::reserve(int64_t n) {
    rows_.reserve(n);
    for (Stream& stream : streams_) stream.staged.reserve(n);
}

void ExactRows::begin(std::span<const int64_t> cells, uint16_t* staging) {
    count_rows(cells);
    rows_.assign(cells.size(), nullptr);
    for (size_t i = 0; i < cells.size(); ++i) {
        if (is_cell(cells[i])) rows_[i] = place(cells[i], staging + static_cast<int64_t>(i) * n_embd_);
    }
}

// Commits the streams of a ubatch and notes how many rows each gets.
void ExactRows::count_rows(std::span<const int64_t> cells) {
    for (const int64_t cell : cells) {
        if (!is_cell(cell)) continue;
        commit(cell / n_cells_);
        streams_[cell / n_cells_].n_in_ubatch = 0;
    }
    for (const int64_t cell : cells) {
        if (is_cell(cell)) ++streams_[cell / n_cells_].n_in_ubatch;
    }
}

// Where the next row goes, which is written to `cell`.
uint16_t* ExactRows::place(int64_t cell, uint16_t* staging) {
    drop(cell);
    const int64_t stream = cell / n_cells_, cell_in_stream = cell % n_cells_;
    Stream& s = streams_[stream];
    const bool is_sink = cell_in_stream < cells_.n_sink;
    const int64_t number = s.n_written++;
    kept_[cell] = is_sink || cells_.n_recent > 0;
    if (is_sink) s.sink_cells[cell_in_stream] = cell_in_stream;
    if (cells_.n_recent > 0) {
        const int64_t recent = is_sink ? -1 : cell_in_stream;
        if (s.n_in_ubatch == 1) put_recent(stream, number, recent);   // pushes out what its own query does not see
        else s.staged.push_back({recent, staging});
    }
    if (is_sink) return sink_slot(stream, cell_in_stream);
    if (cells_.n_recent == 0) return nullptr;
    return s.n_in_ubatch == 1 ? recent_slot(stream, number) : staging;
}

uint16_t* ExactRows::adopt(int64_t cell) {
    if (!is_cell(cell)) return nullptr;
    commit(cell / n_cells_);
    streams_[cell / n_cells_].n_in_ubatch = 1;
    return place(cell, nullptr);
}

void ExactRows::store(int64_t i, const float* row) {
    if (rows_[i]) convert(row, n_embd_, rows_[i]);
}

void ExactRows::convert(const float* row, int64_t n, uint16_t* halves) {
    for (int64_t d = 0; d < n; ++d) halves[d] = to_half(row[d]);
}

void ExactRows::commit() {
    for (size_t stream = 0; stream < streams_.size(); ++stream) commit(static_cast<int64_t>(stream));
}

void ExactRows::commit(int64_t stream) { empty_staging(stream, true); }

void ExactRows::abandon() {
    for (size_t stream = 0; stream < streams_.size(); ++stream) empty_staging(static_cast<int64_t>(stream), false);
}

// Each number of the window gets its slot, also one without a row.
void ExactRows::empty_staging(int64_t stream, bool keep) {
    Stream& s = streams_[stream];
    int64_t number = s.first_staged();
    for (const Kept& row : s.staged) {
        const bool in_window = number >= s.n_written - cells_.n_recent, kept = keep && in_window && row.cell >= 0;
        if (in_window) put_recent(stream, number, kept ? row.cell : -1);
        if (kept) std::memcpy(recent_slot(stream, number), row.row, sizeof(uint16_t) * n_embd_);
        if (row.cell >= 0) kept_[stream * n_cells_ + row.cell] = kept;
        ++number;
    }
    s.staged.clear();
}

// cell: in the stream, or -1 for a row that is not kept here.
void ExactRows::put_recent(int64_t stream, int64_t number, int64_t cell) {
    int64_t& slot = streams_[stream].recent_cells[number % cells_.n_recent];
    if (slot >= 0) kept_[stream * n_cells_ + slot] = false;
    slot = cell;
}

void ExactRows::drop(int64_t cell) {
    if (!kept_[cell]) return;
    kept_[cell] = false;
    Stream& s = streams_[cell / n_cells_];
    const int64_t in_stream = cell % n_cells_;
    if (in_stream < cells_.n_sink) s.sink_cells[in_stream] = -1;
    std::replace(s.recent_cells.begin(), s.recent_cells.end(), in_stream, int64_t{-1});
    for (Kept& row : s.staged) {
        if (row.cell == in_stream) row.cell = -1;
    }
}

void ExactRows::forget(int64_t cell, int64_t n) {
    for (int64_t i = std::max<int64_t>(cell, 0); i < cell + n && is_cell(i); ++i) drop(i);
}

void ExactRows::forget_all() { *this = ExactRows(cells_, n_embd_, n_cells_, static_cast<int64_t>(streams_.size()), slots_); }

uint16_t* ExactRows::find(int64_t cell) const {
    if (!is_cell(cell) || !kept_[cell]) return nullptr;
    const int64_t stream = cell / n_cells_, in_stream = cell % n_cells_;
    if (in_stream < cells_.n_sink) return sink_slot(stream, in_stream);
    const int64_t slot = index_of(streams_[stream].recent_cells, in_stream);
    return slot < 0 ? nullptr : recent_slot(stream, slot);
}

ExactRows::Kept ExactRows::sink(int64_t stream, int64_t cell) const {
    if (streams_[stream].sink_cells[cell] < 0) return {};
    return {cell, sink_slot(stream, cell)};
}

ExactRows::Kept ExactRows::recent(int64_t stream, int64_t number) const {
    const Stream& s = streams_[stream];
    const int64_t first_staged = s.first_staged();
    if (number < 0 || number >= s.n_written || number < first_staged - cells_.n_recent) return {};
    if (number >= first_staged) return s.staged[number - first_staged];
    return {s.recent_cells[number % cells_.n_recent], recent_slot(stream, number)};
}

int64_t ExactRows::number_of_query(int64_t stream, int64_t token, int64_t n_tokens) const {
    const Stream& s = streams_[stream];
    return s.n_in_ubatch == n_tokens ? s.n_written - n_tokens + token : s.n_written - 1;
}

}  // namespace tq
