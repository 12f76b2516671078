// Rows of K or V that are kept as they came, in f16, beside their codes: those of the first cells of a stream (sinks),
// and those written last (a window and a reserve behind it). Attention takes them in place of the packed cells;
// docs/decisions/0009 tells why so.
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

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "turboquant/format/exact_cells.h"

namespace tq {

class ExactRows {
  public:
    // Bytes of the slots: [stream][n_sink, then n_recent + n_reserve][n_embd] halves. Numbers beyond n_cells are
    // fitted.
    static size_t bytes(const ExactCells& cells, int64_t n_embd, int64_t n_cells, int64_t n_stream);

    // slots: bytes() bytes, to stay as long as this does.
    ExactRows(const ExactCells& cells, int64_t n_embd, int64_t n_cells, int64_t n_stream, uint16_t* slots);

    // begin() with up to n rows then allocates nothing.
    void reserve(int64_t n);

    // A ubatch: row i goes to cell cells[i], numbered over all streams; others than there are are left out. staging:
    // room for as many rows of n_embd halves, to stay until commit(). Commits what its streams have staged before.
    void begin(std::span<const int64_t> cells, uint16_t* staging);

    // Row i of the ubatch: n_embd floats. What no half can hold is clamped and NaN becomes 0, as codes have it. Threads
    // may store different rows at once. Of rows for the same cell the last one is kept.
    void store(int64_t i, const float* row);

    // n floats as halves, in store()'s way.
    static void convert(const float* row, int64_t n, uint16_t* halves);

    // The ubatch (of a stream) has been attended to: moves its last rows from the staging memory to their slots.
    void commit();
    void commit(int64_t stream);

    // The ubatch never came to its end, nor will it: what is staged may be anything, and is not kept.
    void abandon();

    // A row that comes in another way than with its query (a state that is loaded): the slot that it goes to, as the
    // newest row of its stream; null if it is not kept.
    uint16_t* adopt(int64_t cell);

    // Cells [cell, cell + n), numbered over all streams, have codes alone from now on.
    void forget(int64_t cell, int64_t n);
    void forget_all();

    // The row of a cell, numbered over all streams; null if it has codes alone. Not of rows that are staged.
    uint16_t* find(int64_t cell) const;

    // A row that is kept, and its cell in the stream.
    struct Kept {
        int64_t cell = -1;
        const uint16_t* row = nullptr;  // null: none
    };
    Kept sink(int64_t stream, int64_t cell) const;

    // Rows of a stream from a query's own backwards, one with each age: 0 is the newest that the query may take. The
    // query is the token'th of n_tokens in the stream's last ubatch; if that had another size, age 0 is the newest row
    // of all.
    int64_t n_ages(int64_t stream, int64_t token, int64_t n_tokens) const;
    Kept recent(int64_t stream, int64_t token, int64_t n_tokens, int64_t age) const;

    const ExactCells& cells() const { return cells_; }  // fitted

  private:
    struct Stream {
        int64_t n_in_ubatch = 0;          // rows of the last begin()
        std::vector<int64_t> sink_cells;  // each slot's cell in the stream, or -1
        std::vector<Kept> kept;           // rows beside sinks: oldest first, n_kept() at most
        std::vector<Kept>
            staged;  // rows of the last ubatch, newer than `kept`, a sink's without a cell; not in slots yet
        std::vector<uint16_t*> free_slots;
    };

    uint16_t* sink_slot(int64_t stream, int64_t cell) const;
    void empty_staging(int64_t stream, bool keep);
    void make_room(int64_t stream);
    uint16_t* keep_newest(int64_t stream, int64_t cell);
    void drop(int64_t cell);
    void count_rows(std::span<const int64_t> cells);
    uint16_t* place(int64_t cell, uint16_t* staging);
    bool is_cell(int64_t cell) const { return cell >= 0 && cell < n_cells_ * static_cast<int64_t>(streams_.size()); }
    int64_t newest_of_query(int64_t stream, int64_t token, int64_t n_tokens) const;

    ExactCells cells_;
    int64_t n_embd_;
    int64_t n_cells_;  // a stream
    uint16_t* slots_;
    std::vector<Stream> streams_;
    std::vector<bool> kept_;       // cells that have an exact row, numbered over all streams
    std::vector<uint16_t*> rows_;  // places where the rows of the ubatch go; null: nowhere
};

// A cell that a query attends to exactly.
struct ExactRow {
    const uint16_t* k;
    const uint16_t* v;
    int64_t cell;
};

// Calls fn(ExactRow) on those of a query, n_per_query() at most: the sinks, then the window from the newest row on.
// Each is a cell of the stream for which visible(cell) holds, and whose row both K and V have. An aborted graph may
// have written one of them only; they agree again from the newest row on.
template <class Visible, class Fn>
void for_exact_rows(const ExactRows& k, const ExactRows& v, int64_t k_stream, int64_t v_stream, int64_t token,
                    int64_t n_tokens, Visible visible, Fn fn) {
    const auto both = [&](const ExactRows::Kept& a, const ExactRows::Kept& b) {
        if (a.row && b.row && a.cell == b.cell) fn(ExactRow{a.row, b.row, a.cell});
    };
    for (int64_t cell = 0; cell < k.cells().n_sink; ++cell) {
        if (visible(cell)) both(k.sink(k_stream, cell), v.sink(v_stream, cell));
    }
    const int64_t n_ages = std::min(k.n_ages(k_stream, token, n_tokens), v.n_ages(v_stream, token, n_tokens));
    int64_t n_met = 0, n_taken = 0;  // no more are met than are kept in any case, however tokens were cut into ubatches
    for (int64_t age = 0; age < n_ages && n_met < k.cells().n_kept() && n_taken < k.cells().n_recent; ++age) {
        const ExactRows::Kept row = k.recent(k_stream, token, n_tokens, age);
        if (row.cell < 0) continue;
        ++n_met;
        if (!visible(row.cell)) continue;
        both(row, v.recent(v_stream, token, n_tokens, age));
        ++n_taken;
    }
}

}  // namespace tq
