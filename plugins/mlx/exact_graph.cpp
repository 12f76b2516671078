#include "exact_graph.h"

#include <algorithm>

namespace tq::mlx_plugin {
namespace {

constexpr float kLargestHalf = 65504;

// The call's tokens of one stream.
struct Tokens {
    const ExactCells& cells;
    const AttendCall& call;
    const StreamCells& stream;
    int64_t index;  // of the stream
    int64_t n_tokens;

    int64_t n_before() const { return stream.n_kv - stream.n_tokens; }
    // The row of a cell among those that gather_exact() makes; -1 if it has codes alone.
    int32_t row_of(int64_t cell) const {
        const auto n_stream = static_cast<int64_t>(call.streams.size());
        if (cell >= n_before())
            return static_cast<int32_t>(n_stream * cells.n_slots() + index * n_tokens + cell - n_before());
        if (cell >= cells.n_sink && cell < stream.first_exact) return -1;
        return static_cast<int32_t>(index * cells.n_slots() + exact_slot(cells, cell));
    }
    // The first cell that a query sees, and the one behind its last.
    int64_t first_seen(int64_t token) const {
        return call.window > 0 ? std::max<int64_t>(0, n_before() + token + 1 - call.window) : 0;
    }
    int64_t end_seen(int64_t token) const { return call.causal ? n_before() + token + 1 : stream.n_kv; }
};

// Adds the exact cells of a query in the order that the library has: sinks, then the window from its newest row on.
template <class Add>
void for_exact_cells(const Tokens& t, int64_t token, Add add) {
    const int64_t first = t.first_seen(token), end = t.end_seen(token);
    for (int64_t cell = first; cell < std::min<int64_t>(t.cells.n_sink, end); ++cell) add(cell);
    const int64_t newest = std::min(end, t.n_before() + token + 1) - 1;  // a query's window ends with its own row
    const int64_t oldest = std::max({first, newest - t.cells.n_recent + 1, int64_t{0}});
    for (int64_t cell = newest; cell >= oldest; --cell) {
        if (cell >= t.cells.n_sink && t.row_of(cell) >= 0) add(cell);
    }
}

}  // namespace

mx::array exact_halves(const mx::array& rows, mx::Stream stream) {
    const mx::array floats = mx::astype(rows, mx::float32, stream);
    const mx::array clamped = mx::clip(floats, mx::array(-kLargestHalf), mx::array(kLargestHalf), stream);
    const mx::array finite = mx::where(mx::isnan(floats, stream), mx::array(0.0f), clamped, stream);
    const mx::array halves = mx::astype(mx::transpose(finite, {0, 2, 1, 3}, stream), mx::float16, stream);
    return mx::reshape(halves, {rows.shape(0), rows.shape(2), rows.shape(1) * rows.shape(3)}, stream);
}

mx::array keep_exact(const ExactCells& cells, const AppendCall& call, const mx::array& exact, const mx::array& rows,
                     mx::Stream stream) {
    const auto n_slots = static_cast<int>(cells.n_slots());
    const int n_rows = rows.shape(2);
    std::vector<int32_t> slots;  // of each row; one more than there are for rows that are not kept
    for (const auto& [cell, n] : call.streams) {
        for (int64_t i = 0; i < n_rows; ++i) {
            const bool kept = i < n && (cell + i < cells.n_sink || i >= n - cells.n_kept());
            slots.push_back(kept ? static_cast<int32_t>(exact_slot(cells, cell + i)) : n_slots);
        }
    }
    const int n_stream = rows.shape(0), n_embd = exact.shape(2);
    const mx::array indices =
        mx::broadcast_to(mx::array(slots.data(), {n_stream, n_rows, 1}, mx::int32), {n_stream, n_rows, n_embd}, stream);
    const mx::array room = mx::concatenate({exact, mx::zeros({n_stream, 1, n_embd}, mx::float16, stream)}, 1, stream);
    const mx::array put = mx::put_along_axis(room, indices, exact_halves(rows, stream), 1, stream);
    return mx::slice(put, {0, 0, 0}, {n_stream, n_slots, n_embd}, stream);
}

mx::array gather_exact(const ExactSide& side, mx::Stream stream) {
    const int n_embd = side.before.shape(2);
    const mx::array before = mx::reshape(side.before, {-1, n_embd}, stream);
    const mx::array tokens = mx::reshape(exact_halves(side.tokens, stream), {-1, n_embd}, stream);
    return mx::concatenate({before, tokens}, 0, stream);
}

ExactLists exact_lists(const ExactCells& cells, const AttendCall& call, int64_t n_tokens, int n_exact,
                       int hidden_words) {
    ExactLists lists;
    const size_t n_lists = call.streams.size() * static_cast<size_t>(n_tokens);
    lists.entries.assign(n_lists * static_cast<size_t>(n_exact), {-1, -1, -1});
    lists.hidden.assign(n_lists * static_cast<size_t>(hidden_words), 0);
    for (size_t stream = 0; stream < call.streams.size(); ++stream) {
        const Tokens tokens{cells, call, call.streams[stream], static_cast<int64_t>(stream), n_tokens};
        for (int64_t token = 0; token < tokens.stream.n_tokens; ++token) {
            const size_t list = stream * static_cast<size_t>(n_tokens) + static_cast<size_t>(token);
            ExactEntry* entry = lists.entries.data() + list * static_cast<size_t>(n_exact);
            uint32_t* hidden = lists.hidden.data() + list * static_cast<size_t>(hidden_words);
            for_exact_cells(tokens, token, [&](int64_t cell) {
                const int32_t row = tokens.row_of(cell);
                *entry++ = {row, row, static_cast<int32_t>(cell)};
                hidden[cell / 32] |= 1u << cell % 32;
            });
        }
    }
    return lists;
}

}  // namespace tq::mlx_plugin
