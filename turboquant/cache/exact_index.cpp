#include "turboquant/cache/exact_index.h"

#include <algorithm>

namespace tq {
namespace {

std::vector<ExactIndex::Kept>::const_iterator find_cell(const std::vector<ExactIndex::Kept>& rows, int64_t cell) {
    return std::find_if(rows.begin(), rows.end(), [cell](const ExactIndex::Kept& row) { return row.cell == cell; });
}

}  // namespace

ExactIndex::ExactIndex(const ExactCells& cells, int64_t n_cells, int64_t n_stream)
    : cells_(cells.fitted(n_cells)), n_cells_(n_cells), streams_(n_stream), has_row_(n_cells * n_stream, false) {
    for (Stream& s : streams_) {
        s.is_sink.assign(cells_.n_sink, false);
        s.kept.reserve(cells_.n_kept());
        for (int64_t i = 0; i < cells_.n_kept(); ++i) s.free_slots.push_back(cells_.n_sink + i);
    }
    moves_.reserve(n_stream * cells_.n_kept());
}

void ExactIndex::reserve(int64_t n) {
    places_.reserve(n);
    for (Stream& stream : streams_) stream.staged.reserve(n);
}

void ExactIndex::begin(std::span<const int64_t> cells) {
    count_rows(cells);
    places_.assign(cells.size(), ExactPlace());
    for (size_t i = 0; i < cells.size(); ++i) {
        if (!is_cell(cells[i])) continue;
        const ExactPlace place = place_row(cells[i], static_cast<int64_t>(i));
        for (size_t j = 0; j < i && place.is_slot(); ++j) {  // of two rows for one slot the last is kept
            if (cells[j] == cells[i]) places_[j] = ExactPlace();
        }
        places_[i] = place;
    }
}

// Commits the streams of a ubatch and notes how many rows each gets.
void ExactIndex::count_rows(std::span<const int64_t> cells) {
    moves_.clear();
    for (const int64_t cell : cells) {
        if (!is_cell(cell)) continue;
        empty_staging(cell / n_cells_, true);
        streams_[cell / n_cells_].n_in_ubatch = 0;
    }
    for (const int64_t cell : cells) {
        if (is_cell(cell)) ++streams_[cell / n_cells_].n_in_ubatch;
    }
}

// The place of the next row, which is written to `cell`.
ExactPlace ExactIndex::place_row(int64_t cell, int64_t row) {
    drop(cell);
    const int64_t stream = cell / n_cells_, cell_in_stream = cell % n_cells_;
    Stream& s = streams_[stream];
    const bool is_sink = cell_in_stream < cells_.n_sink;
    has_row_[cell] = is_sink || cells_.n_recent > 0;
    if (is_sink) s.is_sink[cell_in_stream] = true;
    const bool alone = s.n_in_ubatch == 1;  // then it pushes out what its own query does not see
    if (!alone && cells_.n_recent > 0) s.staged.push_back({is_sink ? -1 : cell_in_stream, ExactPlace::staged(row)});
    if (is_sink) return ExactPlace::slot(cell_in_stream);
    if (cells_.n_recent == 0) return {};
    return alone ? ExactPlace::slot(keep_newest(stream, cell_in_stream)) : ExactPlace::staged(row);
}

// A free slot, if need be that of the oldest row.
void ExactIndex::make_room(int64_t stream) {
    Stream& s = streams_[stream];
    if (!s.free_slots.empty()) return;
    const Kept oldest = s.kept.front();
    s.kept.erase(s.kept.begin());
    has_row_[stream * n_cells_ + oldest.cell] = false;
    s.free_slots.push_back(oldest.place.slot());
}

int64_t ExactIndex::keep_newest(int64_t stream, int64_t cell) {
    make_room(stream);
    Stream& s = streams_[stream];
    const int64_t slot = s.free_slots.back();
    s.free_slots.pop_back();
    s.kept.push_back({cell, ExactPlace::slot(slot)});
    has_row_[stream * n_cells_ + cell] = true;
    return slot;
}

ExactPlace ExactIndex::adopt(int64_t cell) {
    moves_.clear();
    if (!is_cell(cell)) return {};
    empty_staging(cell / n_cells_, true);
    streams_[cell / n_cells_].n_in_ubatch = 1;
    return place_row(cell, 0);
}

std::span<const ExactIndex::Move> ExactIndex::commit() {
    moves_.clear();
    for (int64_t stream = 0; stream < n_stream(); ++stream) empty_staging(stream, true);
    return moves_;
}

std::span<const ExactIndex::Move> ExactIndex::commit(int64_t stream) {
    moves_.clear();
    empty_staging(stream, true);
    return moves_;
}

void ExactIndex::abandon() {
    for (int64_t stream = 0; stream < n_stream(); ++stream) empty_staging(stream, false);
}

void ExactIndex::empty_staging(int64_t stream, bool keep) {
    Stream& s = streams_[stream];
    std::erase_if(s.staged, [](const Kept& row) { return row.cell < 0; });
    const int64_t n = std::ssize(s.staged), first = keep ? n - std::min<int64_t>(cells_.n_kept(), n) : n;
    for (int64_t i = 0; i < n; ++i) {
        const Kept row = s.staged[i];
        if (i < first)
            has_row_[stream * n_cells_ + row.cell] = false;
        else
            moves_.push_back({stream, row.place.row(), keep_newest(stream, row.cell)});
    }
    s.staged.clear();
}

// The cell is written anew, or has codes alone from now on.
void ExactIndex::drop(int64_t cell) {
    if (!has_row_[cell]) return;
    has_row_[cell] = false;
    Stream& s = streams_[cell / n_cells_];
    const int64_t in_stream = cell % n_cells_;
    if (in_stream < cells_.n_sink) s.is_sink[in_stream] = false;
    if (const auto found = find_cell(s.kept, in_stream); found != s.kept.end()) {
        s.free_slots.push_back(found->place.slot());
        s.kept.erase(found);
    }
    for (Kept& row : s.staged) {
        if (row.cell == in_stream) row.cell = -1;  // its place stays: queries count by it
    }
}

void ExactIndex::forget(int64_t cell, int64_t n) {
    for (int64_t i = std::max<int64_t>(cell, 0); i < cell + n && is_cell(i); ++i) drop(i);
}

void ExactIndex::forget_all() {
    *this = ExactIndex(cells_, n_cells_, n_stream());
}

ExactPlace ExactIndex::find(int64_t cell) const {
    if (!is_cell(cell) || !has_row_[cell]) return {};
    const int64_t in_stream = cell % n_cells_;
    if (in_stream < cells_.n_sink) return ExactPlace::slot(in_stream);
    const std::vector<Kept>& kept = streams_[cell / n_cells_].kept;
    const auto found = find_cell(kept, in_stream);
    return found == kept.end() ? ExactPlace() : found->place;
}

ExactIndex::Kept ExactIndex::sink(int64_t stream, int64_t cell) const {
    if (!streams_[stream].is_sink[cell]) return {};
    return {cell, ExactPlace::slot(cell)};
}

// The place of the query's own row in `kept` and then `staged`; below 0 if it was not kept.
int64_t ExactIndex::newest_of_query(int64_t stream, int64_t token, int64_t n_tokens) const {
    const Stream& s = streams_[stream];
    const int64_t newest = std::ssize(s.kept) + std::ssize(s.staged) - 1;
    return s.n_in_ubatch == n_tokens ? newest - (n_tokens - 1 - token) : newest;
}

int64_t ExactIndex::n_ages(int64_t stream, int64_t token, int64_t n_tokens) const {
    return std::max<int64_t>(newest_of_query(stream, token, n_tokens) + 1, 0);
}

ExactIndex::Kept ExactIndex::recent(int64_t stream, int64_t token, int64_t n_tokens, int64_t age) const {
    const Stream& s = streams_[stream];
    const int64_t place = newest_of_query(stream, token, n_tokens) - age;
    return place < std::ssize(s.kept) ? s.kept[place] : s.staged[place - std::ssize(s.kept)];
}

}  // namespace tq
