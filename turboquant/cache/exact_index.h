// The bookkeeping of exact rows (cache/exact_rows.h): which rows a stream keeps, and in which slots. It knows no data:
// what is to be moved is a list of numbers, so that one index serves all tensors of a cache, in any engine's memory.
//
// Which rows a query takes is a function of the cells that it sees: the sinks among them, and of the others the
// n_recent that were written last, up to its token's own row. What was written and taken back (a rejected draft, a
// removed tail) is no longer seen and costs the window nothing, up to n_reserve rows. So what a query takes depends
// neither on how tokens were cut into ubatches nor on what was tried in between. Rows of a ubatch wait in staging
// memory until it has been attended to, as its first queries still need the rows that its last ones push out.
//
// Sequences that share a stream share its n_recent + n_reserve rows. What changes cells by other means than begin()
// must say so (forget): then the codes alone are left of them, which is always right.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "turboquant/format/exact_cells.h"

namespace tq {

// Where a row is: in a slot of its stream, waiting as a row of the ubatch, or nowhere.
class ExactPlace {
  public:
    ExactPlace() = default;
    static ExactPlace slot(int64_t slot) { return ExactPlace(slot); }
    static ExactPlace staged(int64_t row) { return ExactPlace(-2 - row); }
    bool none() const { return value_ == kNone; }
    bool is_slot() const { return value_ >= 0; }
    int64_t slot() const { return value_; }
    int64_t row() const { return -2 - value_; }

  private:
    static constexpr int64_t kNone = -1;
    explicit ExactPlace(int64_t value) : value_(value) {}
    int64_t value_ = kNone;
};

class ExactIndex {
  public:
    // Numbers beyond n_cells are fitted.
    ExactIndex(const ExactCells& cells, int64_t n_cells, int64_t n_stream);

    const ExactCells& cells() const { return cells_; }  // fitted
    int64_t n_cells() const { return n_cells_; }        // of a stream
    int64_t n_stream() const { return static_cast<int64_t>(streams_.size()); }

    // begin() with up to n rows then allocates nothing.
    void reserve(int64_t n);

    // A row that waits goes to a slot of its stream.
    struct Move {
        int64_t stream, row, slot;
    };

    // A ubatch: row i goes to cell cells[i], numbered over all streams; others than there are are left out. Commits
    // what its streams have staged before; place(i) then says where row i is to be stored. Of rows for the same sink
    // the last one has a place.
    void begin(std::span<const int64_t> cells);
    ExactPlace place(int64_t row) const { return places_[static_cast<size_t>(row)]; }

    // The ubatch (of a stream) has been attended to: its last rows have slots from now on. Returns the moves since this
    // was last called for any stream; they hold until the next call.
    std::span<const Move> commit();
    std::span<const Move> commit(int64_t stream);
    // The moves that begin() or adopt() has led to.
    std::span<const Move> moves() const { return moves_; }

    // The ubatch never came to its end, nor will it: what is staged may be anything, and is not kept.
    void abandon();

    // A row that comes in another way than with its query (a state that is loaded): the slot that it goes to, as the
    // newest row of its stream.
    ExactPlace adopt(int64_t cell);

    // Cells [cell, cell + n), numbered over all streams, have codes alone from now on.
    void forget(int64_t cell, int64_t n);
    void forget_all();

    // The slot of a cell, numbered over all streams; none if it has codes alone. Not of rows that are staged.
    ExactPlace find(int64_t cell) const;

    // A row that is kept, and its cell in the stream.
    struct Kept {
        int64_t cell = -1;
        ExactPlace place;
    };
    Kept sink(int64_t stream, int64_t cell) const;

    // Rows of a stream from a query's own backwards, one with each age: 0 is the newest that the query may take. The
    // query is the token'th of n_tokens in the stream's last ubatch; if that had another size, age 0 is the newest row
    // of all.
    int64_t n_ages(int64_t stream, int64_t token, int64_t n_tokens) const;
    Kept recent(int64_t stream, int64_t token, int64_t n_tokens, int64_t age) const;

  private:
    struct Stream {
        int64_t n_in_ubatch = 0;    // rows of the last begin()
        std::vector<bool> is_sink;  // sinks that have a row
        std::vector<Kept> kept;     // rows beside sinks: oldest first, n_kept() at most
        // Rows of the last ubatch, newer than `kept`, a sink's without a cell; not in slots yet.
        std::vector<Kept> staged;
        std::vector<int64_t> free_slots;
    };

    void empty_staging(int64_t stream, bool keep);
    void make_room(int64_t stream);
    int64_t keep_newest(int64_t stream, int64_t cell);
    void drop(int64_t cell);
    void count_rows(std::span<const int64_t> cells);
    ExactPlace place_row(int64_t cell, int64_t row);
    bool is_cell(int64_t cell) const { return cell >= 0 && cell < n_cells_ * n_stream(); }
    int64_t newest_of_query(int64_t stream, int64_t token, int64_t n_tokens) const;

    ExactCells cells_;
    int64_t n_cells_;
    std::vector<Stream> streams_;
    std::vector<bool> has_row_;  // cells, numbered over all streams
    std::vector<ExactPlace> places_;
    std::vector<Move> moves_;
};

}  // namespace tq
