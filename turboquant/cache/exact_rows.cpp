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

std::vector<ExactRows::Kept>::const_iterator find_cell(const std::vector<ExactRows::Kept>& rows, int64_t cell) {
    return std::find_if(rows.begin(), rows.end(), [cell](const ExactRows::Kept& row) { return row.cell == cell; });
}

}  // namespace

size_t ExactRows::bytes(const ExactCells& cells, int64_t n_embd, int64_t n_cells, int64_t n_stream) {
    return sizeof(uint16_t) * static_cast<size_t>(cells.fitted(n_cells).n_slots() * n_embd * n_stream);
}

ExactRows::ExactRows(const ExactCells& cells, int64_t n_embd, int64_t n_cells, int64_t n_stream, uint16_t* slots)
    : cells_(cells.fitted(n_cells)),
      n_embd_(n_embd),
      n_cells_(n_cells),
      slots_(slots),
      streams_(n_stream),
      kept_(n_cells * n_stream, false) {
    for (int64_t stream = 0; stream < n_stream; ++stream) {
        Stream& s = streams_[stream];
        s.sink_cells.assign(cells_.n_sink, -1);
        s.kept.reserve(cells_.n_kept());
        for (int64_t i = 0; i < cells_.n_kept(); ++i) s.free_slots.push_back(sink_slot(stream, cells_.n_sink + i));
    }
}

uint16_t* ExactRows::sink_slot(int64_t stream, int64_t cell) const {
    return slots_ + (stream * cells_.n_slots() + cell) * n_embd_;
}

void ExactRows::reserve(int64_t n) {
    rows_.reserve(n);
    for (Stream& stream : streams_) stream.staged.reserve(n);
}

void ExactRows::begin(std::span<const int64_t> cells, uint16_t* staging) {
    count_rows(cells);
    rows_.assign(cells.size(), nullptr);
    for (size_t i = 0; i < cells.size(); ++i) {
        if (!is_cell(cells[i])) continue;
        uint16_t* row = place(cells[i], staging + static_cast<int64_t>(i) * n_embd_);
        if (cells[i] % n_cells_ < cells_.n_sink)
            std::replace(rows_.begin(), rows_.begin() + static_cast<int64_t>(i), row, static_cast<uint16_t*>(nullptr));
        rows_[i] = row;
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

// Returns the place of the next row, which is written to `cell`.
uint16_t* ExactRows::place(int64_t cell, uint16_t* staging) {
    drop(cell);
    const int64_t stream = cell / n_cells_, cell_in_stream = cell % n_cells_;
    Stream& s = streams_[stream];
    const bool is_sink = cell_in_stream < cells_.n_sink;
    kept_[cell] = is_sink || cells_.n_recent > 0;
    if (is_sink) s.sink_cells[cell_in_stream] = cell_in_stream;
    const bool alone = s.n_in_ubatch == 1;  // then it pushes out what its own query does not see
    if (!alone && cells_.n_recent > 0) s.staged.push_back({is_sink ? -1 : cell_in_stream, staging});
    if (is_sink) return sink_slot(stream, cell_in_stream);
    if (cells_.n_recent == 0) return nullptr;
    return alone ? keep_newest(stream, cell_in_stream) : staging;
}

// A free slot, if need be that of the oldest row.
void ExactRows::make_room(int64_t stream) {
    Stream& s = streams_[stream];
    if (!s.free_slots.empty()) return;
    const Kept oldest = s.kept.front();
    s.kept.erase(s.kept.begin());
    kept_[stream * n_cells_ + oldest.cell] = false;
    s.free_slots.push_back(const_cast<uint16_t*>(oldest.row));
}

uint16_t* ExactRows::keep_newest(int64_t stream, int64_t cell) {
    make_room(stream);
    Stream& s = streams_[stream];
    uint16_t* slot = s.free_slots.back();
    s.free_slots.pop_back();
    s.kept.push_back({cell, slot});
    kept_[stream * n_cells_ + cell] = true;
    return slot;
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

void ExactRows::commit(int64_t stream) {
    empty_staging(stream, true);
}

void ExactRows::abandon() {
    for (size_t stream = 0; stream < streams_.size(); ++stream) empty_staging(static_cast<int64_t>(stream), false);
}

void ExactRows::empty_staging(int64_t stream, bool keep) {
    Stream& s = streams_[stream];
    std::erase_if(s.staged, [](const Kept& row) { return row.cell < 0; });
    const auto first =
        keep ? s.staged.end() - std::min<int64_t>(cells_.n_kept(), std::ssize(s.staged)) : s.staged.end();
    for (auto row = s.staged.begin(); row != s.staged.end(); ++row) {
        if (row < first)
            kept_[stream * n_cells_ + row->cell] = false;
        else
            std::memcpy(keep_newest(stream, row->cell), row->row, sizeof(uint16_t) * n_embd_);
    }
    s.staged.clear();
}

// The cell is written anew, or has codes alone from now on.
void ExactRows::drop(int64_t cell) {
    if (!kept_[cell]) return;
    kept_[cell] = false;
    Stream& s = streams_[cell / n_cells_];
    const int64_t in_stream = cell % n_cells_;
    if (in_stream < cells_.n_sink) s.sink_cells[in_stream] = -1;
    if (const auto found = find_cell(s.kept, in_stream); found != s.kept.end()) {
        s.free_slots.push_back(const_cast<uint16_t*>(found->row));
        s.kept.erase(found);
    }
    for (Kept& row : s.staged) {
        if (row.cell == in_stream) row.cell = -1;  // its place stays: queries count by it
    }
}

void ExactRows::forget(int64_t cell, int64_t n) {
    for (int64_t i = std::max<int64_t>(cell, 0); i < cell + n && is_cell(i); ++i) drop(i);
}

void ExactRows::forget_all() {
    *this = ExactRows(cells_, n_embd_, n_cells_, static_cast<int64_t>(streams_.size()), slots_);
}

uint16_t* ExactRows::find(int64_t cell) const {
    if (!is_cell(cell) || !kept_[cell]) return nullptr;
    const int64_t stream = cell / n_cells_, in_stream = cell % n_cells_;
    if (in_stream < cells_.n_sink) return sink_slot(stream, in_stream);
    const auto found = find_cell(streams_[stream].kept, in_stream);
    return found == streams_[stream].kept.end() ? nullptr : const_cast<uint16_t*>(found->row);
}

ExactRows::Kept ExactRows::sink(int64_t stream, int64_t cell) const {
    if (streams_[stream].sink_cells[cell] < 0) return {};
    return {cell, sink_slot(stream, cell)};
}

// The place of the query's own row in `kept` and then `staged`; below 0 if it was not kept.
int64_t ExactRows::newest_of_query(int64_t stream, int64_t token, int64_t n_tokens) const {
    const Stream& s = streams_[stream];
    const int64_t newest = std::ssize(s.kept) + std::ssize(s.staged) - 1;
    return s.n_in_ubatch == n_tokens ? newest - (n_tokens - 1 - token) : newest;
}

int64_t ExactRows::n_ages(int64_t stream, int64_t token, int64_t n_tokens) const {
    return std::max<int64_t>(newest_of_query(stream, token, n_tokens) + 1, 0);
}

ExactRows::Kept ExactRows::recent(int64_t stream, int64_t token, int64_t n_tokens, int64_t age) const {
    const Stream& s = streams_[stream];
    const int64_t place = newest_of_query(stream, token, n_tokens) - age;
    return place < std::ssize(s.kept) ? s.kept[place] : s.staged[place - std::ssize(s.kept)];
}

}  // namespace tq
