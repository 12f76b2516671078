// Rows of K or V that are kept as they came, in f16, beside their codes: those of the first cells of a stream (sinks), and
// those written last (a window). Attention takes them in place of the packed cells; docs/decisions/0009 tells why so.
//
// Every row written to a stream has a number: 0, 1, 2, ... in the order of writing. The query of a token has the number
// of the token's own row and takes the n_recent rows up to that one, whatever ubatch they came in: so what a query sees
// does not depend on how tokens were cut into ubatches. Rows of a ubatch wait in staging memory until it has been
// attended to, as its first queries still need the rows that its last ones push out.
//
// Sequences that share a stream share its window. What changes cells by other means than begin() must say so (forget):
// then the codes alone are left of them, which is always right.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "turboquant/codec/exact_cells.h"

namespace tq {

class ExactRows {
public:
    // Bytes of the slots: [stream][n_sink, then n_recent][n_embd] halves.
    static size_t bytes(const ExactCells& cells, int64_t n_embd, int64_t n_stream);

    // slots: bytes() bytes, to stay as long as this does.
    ExactRows(const ExactCells& cells, int64_t n_embd, int64_t n_cells, int64_t n_stream, uint16_t* slots);

    // begin() with up to n rows then allocates nothing.
    void reserve(int64_t n);

    // A ubatch: row i goes to cell cells[i], numbered over all streams; others than there are are left out. staging: room
    // for as many rows of n_embd halves, to stay until commit(). Commits what its streams have staged before.
    void begin(std::span<const int64_t> cells, uint16_t* staging);

    // Row i of the ubatch: n_embd floats. What no half can hold is clamped and NaN becomes 0, as codes have it. Threads may
    // store different rows at once.
    void store(int64_t i, const float* row);

    // n floats as halves, in store()'s way.
    static void convert(const float* row, int64_t n, uint16_t* halves);

    // The ubatch (of a stream) has been attended to: moves its last rows from the staging memory to their slots.
    void commit();
    void commit(int64_t stream);

    // The ubatch never came to its end, nor will it: what is staged may be anything, and is not kept.
    void abandon();

    // A row that comes in another way than with its query (a state that is loaded): the slot that it goes to, as the newest
    // row of its stream; null if it is not kept.
    uint16_t* adopt(int64_t cell);

    // Cells [cell, cell + n), numbered over all streams, have codes alone from now on.
    void forget(int64_t cell, int64_t n);
    void forget_all();

    // The row of a cell, numbered over all streams; null if it has codes alone.
    uint16_t* find(int64_t cell) const;

    // A row that is kept, and its cell in the stream.
    struct Kept {
        int64_t cell = -1;
        const uint16_t* row = nullptr;   // null: none
    };
    Kept sink(int64_t stream, int64_t cell) const;
    Kept recent(int64_t stream, int64_t number) const;
    // The number of a query: of n_tokens in the stream's last ubatch, the token'th. If that had another size, the newest.
    int64_t number_of_query(int64_t stream, int64_t token, int64_t n_tokens) const;

    const ExactCells& cells() const { return cells_; }

private:
    struct Stream {
        int64_t n_written = 0;            // numbers given
        int64_t n_in_ubatch = 0;          // of these, by the last begin()
        std::vector<int64_t> sink_cells;  // of each slot its cell in the stream, or -1
        std::vector<int64_t> recent_cells;
        std::vector<Kept> staged;         // the last rows written, not yet in their slots
        int64_t first_staged() const { return n_written - static_cast<int64_t>(staged.size()); }
    };

    uint16_t* sink_slot(int64_t stream, int64_t cell) const;
    uint16_t* recent_slot(int64_t stream, int64_t number) const;
    void empty_staging(int64_t stream, bool keep);
    void put_recent(int64_t stream, int64_t number, int64_t cell);
    void drop(int64_t cell);
    void count_rows(std::span<const int64_t> cells);
    uint16_t* place(int64_t cell, uint16_t* staging);
    bool is_cell(int64_t cell) const { return cell >= 0 && cell < n_cells_ * static_cast<int64_t>(streams_.size()); }

    ExactCells cells_;
    int64_t n_embd_;
    int64_t n_cells_;   // a stream
    uint16_t* slots_;
    std::vector<Stream> streams_;
    std::vector<bool> kept_;          // of cells, numbered over all streams
    std::vector<uint16_t*> rows_;     // where the rows of the ubatch go; null: nowhere
};

// A cell that a query attends to exactly.
struct ExactRow {
    const uint16_t* k;
    const uint16_t* v;
    int64_t cell;
};

// Calls fn(ExactRow) on those of a query, n_slots() at most, in the order of sinks and then numbers: what both K and V have.
template <class Fn>
void for_exact_rows(const ExactRows& k, const ExactRows& v, int64_t k_stream, int64_t v_stream, int64_t token, int64_t n_tokens, Fn fn) {
    const auto both = [&](const ExactRows::Kept& a, const ExactRows::Kept& b) {
        if (a.row && b.row && a.cell >= 0 && a.cell == b.cell) fn(ExactRow{a.row, b.row, a.cell});
    };
    for (int64_t cell = 0; cell < k.cells().n_sink; ++cell) both(k.sink(k_stream, cell), v.sink(v_stream, cell));
    // Each has its own numbers: an aborted graph may have written one of them only.
    const int64_t last_k = k.number_of_query(k_stream, token, n_tokens), last_v = v.number_of_query(v_stream, token, n_tokens);
    for (int64_t age = k.cells().n_recent - 1; age >= 0; --age) both(k.recent(k_stream, last_k - age), v.recent(v_stream, last_v - age));
}

}  // namespace tq
