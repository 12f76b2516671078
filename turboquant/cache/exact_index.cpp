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
        s.sinks.reserve(cells_.n_sinks_kept());
        s.kept.reserve(cells_.n_kept());
        for (int64_t slot = 0; slot < cells_.n_slots(); ++slot)
            (slot < cells_.n_sinks_kept() ? s.free_sink_slots : s.free_slots).push_back(slot);
    }
    moves_.reserve(n_stream * cells_.n_kept());
}

void ExactIndex::reserve(int64_t n) {
    places_.reserve(n);
    for (Stream& stream : streams_) stream.staged.reserve(n);
}

void ExactIndex::begin(std::span<const int64_t> cells, std::span<const uint8_t> sinks) {
    count_rows(cells);
    places_.assign(cells.size(), ExactPlace());
    for (size_t i = 0; i < cells.size(); ++i) {
        if (!is_cell(cells[i])) continue;
        const bool is_sink = sinks.empty() ? is_first_cell(cells[i]) : sinks[i] && cells_.n_sink > 0;
        const ExactPlace place = place_row(cells[i], static_cast<int64_t>(i), is_sink);
        for (size_t j = 0; j < i && place.is_slot(); ++j) {  // of two rows for one slot the last is kept
            const bool same = places_[j].is_slot() && places_[j].slot() == place.slot();
            if (same && cells[j] / n_cells_ == cells[i] / n_cells_) places_[j] = ExactPlace();
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
ExactPlace ExactIndex::place_row(int64_t cell, int64_t row, bool is_sink) {
    drop(cell);
    const int64_t cell_in_stream = cell % n_cells_;
    Stream& s = streams_[cell / n_cells_];
    has_row_[cell] = is_sink || cells_.n_recent > 0;
    const bool alone = s.n_in_ubatch == 1;  // then it pushes out what its own query does not see
    if (!alone && cells_.n_recent > 0) s.staged.push_back({is_sink ? -1 : cell_in_stream, ExactPlace::staged(row)});
    if (is_sink) return ExactPlace::slot(keep_sink(cell));
    if (cells_.n_recent == 0) return {};
    return alone ? ExactPlace::slot(keep_recent(cell)) : ExactPlace::staged(row);
}

// The slot of the newest of `rows`: a free one, or that of the oldest.
int64_t ExactIndex::keep_newest(int64_t cell, std::vector<Kept>& rows, std::vector<int64_t>& free_slots) {
    if (free_slots.empty()) {
        const Kept oldest = rows.front();
        rows.erase(rows.begin());
        has_row_[cell / n_cells_ * n_cells_ + oldest.cell] = false;
        free_slots.push_back(oldest.place.slot());
    }
    const int64_t slot = free_slots.back();
    free_slots.pop_back();
    rows.push_back({cell % n_cells_, ExactPlace::slot(slot)});
    has_row_[cell] = true;
    return slot;
}

int64_t ExactIndex::keep_sink(int64_t cell) {
    Stream& s = streams_[cell / n_cells_];
    return keep_newest(cell, s.sinks, s.free_sink_slots);
}

int64_t ExactIndex::keep_recent(int64_t cell) {
    Stream& s = streams_[cell / n_cells_];
    return keep_newest(cell, s.kept, s.free_slots);
}

ExactPlace ExactIndex::adopt(int64_t cell, bool sink) {
    moves_.clear();
    if (!is_cell(cell)) return {};
    empty_staging(cell / n_cells_, true);
    streams_[cell / n_cells_].n_in_ubatch = 1;
    return place_row(cell, 0, sink && cells_.n_sink > 0);
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
            moves_.push_back({stream, row.place.row(), keep_recent(stream * n_cells_ + row.cell)});
    }
    s.staged.clear();
}

// The cell is written anew, or has codes alone from now on.
void ExactIndex::drop(int64_t cell) {
    if (!has_row_[cell]) return;
    has_row_[cell] = false;
    Stream& s = streams_[cell / n_cells_];
    const int64_t in_stream = cell % n_cells_;
    const auto drop_from = [&](std::vector<Kept>& rows, std::vector<int64_t>& free_slots) {
        const auto found = find_cell(rows, in_stream);
        if (found == rows.end()) return;
        free_slots.push_back(found->place.slot());
        rows.erase(found);
    };
    drop_from(s.sinks, s.free_sink_slots);
    drop_from(s.kept, s.free_slots);
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
    const Stream& s = streams_[cell / n_cells_];
    for (const std::vector<Kept>* rows : {&s.sinks, &s.kept}) {
        if (const auto found = find_cell(*rows, cell % n_cells_); found != rows->end()) return found->place;
    }
    return {};
}

ExactIndex::Kept ExactIndex::sink_of_cell(int64_t stream, int64_t cell) const {
    const std::vector<Kept>& sinks = streams_[stream].sinks;
    const auto found = find_cell(sinks, cell);
    return found == sinks.end() ? Kept() : *found;
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
