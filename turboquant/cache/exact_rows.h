// Rows of K or V that are kept as they came, in f16, beside their codes: those of the first cells of a stream (sinks),
// and those written last (a window and a reserve behind it). Attention takes them in place of the packed cells;
// docs/decisions/0009 tells why so. Which rows these are is an ExactIndex's business, one's own or one that all tensors
// of a cache share; this moves the data of one tensor.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "turboquant/cache/exact_index.h"

namespace tq {

class ExactRows {
  public:
    // Bytes of the slots: [stream][n_sink, then n_recent + n_reserve][n_embd] halves. Numbers beyond n_cells are
    // fitted.
    static size_t bytes(const ExactCells& cells, int64_t n_embd, int64_t n_cells, int64_t n_stream);

    // slots: bytes() bytes, to stay as long as this does.
    ExactRows(const ExactCells& cells, int64_t n_embd, int64_t n_cells, int64_t n_stream, uint16_t* slots);

    // The data of one of the tensors that share an index. Its owner calls begin, commit, adopt and forget on the index,
    // and then follow() and stage() here.
    ExactRows(ExactIndex& index, int64_t n_embd, uint16_t* slots);

    // begin() with up to n rows then allocates nothing.
    void reserve(int64_t n);

    // ---- an index of one's own

    // A ubatch: row i goes to cell cells[i], numbered over all streams; others than there are are left out. staging:
    // room for as many rows of n_embd halves, to stay until commit(). Commits what its streams have staged before.
    void begin(std::span<const int64_t> cells, uint16_t* staging);

    // The ubatch (of a stream) has been attended to: moves its last rows from the staging memory to their slots.
    void commit() { follow(index_->commit()); }
    void commit(int64_t stream) { follow(index_->commit(stream)); }

    // The ubatch never came to its end, nor will it: what is staged may be anything, and is not kept.
    void abandon() { index_->abandon(); }

    // A row that comes in another way than with its query (a state that is loaded): the slot that it goes to, as the
    // newest row of its stream; null if it is not kept.
    uint16_t* adopt(int64_t cell);

    // Cells [cell, cell + n), numbered over all streams, have codes alone from now on.
    void forget(int64_t cell, int64_t n) { index_->forget(cell, n); }
    void forget_all() { index_->forget_all(); }

    // ---- the data

    // Makes the index's moves.
    void follow(std::span<const ExactIndex::Move> moves);
    // After the index's begin(cells) and follow(index.moves()): its rows are to be stored.
    void stage(std::span<const int64_t> cells, uint16_t* staging);

    // Row i of the ubatch: n_embd floats. What no half can hold is clamped and NaN becomes 0, as codes have it. Threads
    // may store different rows at once. Of rows for the same sink the last one is kept.
    void store(int64_t i, const float* row);

    // n floats as halves, in store()'s way.
    static void convert(const float* row, int64_t n, uint16_t* halves);

    // The row of a cell, numbered over all streams; null if it has codes alone. Not of rows that are staged.
    uint16_t* find(int64_t cell) const;

    // A row that is kept, and its cell in the stream (cache/exact_index.h).
    struct Kept {
        int64_t cell = -1;
        const uint16_t* row = nullptr;  // null: none
    };
    Kept sink(int64_t stream, int64_t cell) const { return kept(stream, index_->sink(stream, cell)); }
    int64_t n_ages(int64_t stream, int64_t token, int64_t n_tokens) const {
        return index_->n_ages(stream, token, n_tokens);
    }
    Kept recent(int64_t stream, int64_t token, int64_t n_tokens, int64_t age) const {
        return kept(stream, index_->recent(stream, token, n_tokens, age));
    }

    const ExactCells& cells() const { return index_->cells(); }  // fitted

  private:
    Kept kept(int64_t stream, const ExactIndex::Kept& kept) const;
    uint16_t* slot_at(int64_t stream, int64_t slot) const {
        return slots_ + (stream * cells().n_slots() + slot) * n_embd_;
    }

    std::unique_ptr<ExactIndex> own_;
    ExactIndex* index_;
    int64_t n_embd_;
    uint16_t* slots_;
    std::vector<uint16_t*> staging_;  // of each stream's last ubatch
    std::vector<uint16_t*> rows_;     // places where the rows of the ubatch go; null: nowhere
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
