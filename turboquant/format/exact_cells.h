// ExactCells says which cells keep their rows as they came (f16) beside the codes: sinks and a window. A preset has
// them behind its codes: "+sink4+recent64", in words "sinks=4 window=64".
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

namespace tq {

inline constexpr int kMaxExactCells = 65536;  // the most cells of each kind
inline constexpr int kReserveByLength = -1;

struct ExactCells {
    int n_sink = 0;    // the first cells of a stream, whose keys much attention rests on
    int n_recent = 0;  // the rows written last among those that a query sees, its own among them
    // Rows kept beyond the window: so many of the newest rows can be taken back (rejected drafts, an edited message)
    // and the window before them is still whole. kReserveByLength: a 128th of the cells beyond 512, at most 64; that is
    // less than 1/8 of a bit per value.
    int n_reserve = kReserveByLength;

    bool operator==(const ExactCells&) const = default;
    bool any() const { return n_sink > 0 || n_recent > 0; }
    int64_t n_per_query() const { return int64_t{n_sink} + n_recent; }  // rows that a query takes at most
    // Rows that a stream keeps; the numbers must be fitted to it.
    int64_t n_slots() const { return int64_t{n_sink} + n_kept(); }
    int64_t n_kept() const { return int64_t{n_recent} + n_reserve; }  // without sinks

    // The same for a stream of n_cells cells: no more rows than cells, and a reserve that is a number.
    ExactCells fitted(int64_t n_cells) const {
        const auto at_most = [](int64_t n, int64_t limit) { return static_cast<int>(std::min(n, limit)); };
        ExactCells fitted{at_most(n_sink, n_cells), at_most(n_recent, n_cells), 0};
        const int64_t reserve =
            n_reserve == kReserveByLength ? std::clamp<int64_t>((n_cells - 512) / 128, 0, 64) : n_reserve;
        if (n_recent > 0) fitted.n_reserve = at_most(reserve, n_cells - fitted.n_recent);
        return fitted;
    }

    // "+sink4+recent64"; "" if there are none. A reserve that was asked for stands behind: "+reserve16".
    std::string name() const {
        const auto part = [](const char* word, int n, bool said) {
            return said ? "+" + std::string(word) + std::to_string(n) : std::string();
        };
        return part("sink", n_sink, n_sink > 0) + part("recent", n_recent, n_recent > 0) +
               part("reserve", n_reserve, has_own_reserve());
    }

    // "sinks=4 window=64 reserve=16", as name() leaves out what there is none of.
    std::string describe() const {
        std::string text;
        const auto add = [&](const char* word, int n, bool said) {
            if (said) text += (text.empty() ? "" : " ") + std::string(word) + "=" + std::to_string(n);
        };
        add("sinks", n_sink, n_sink > 0);
        add("window", n_recent, n_recent > 0);
        add("reserve", n_reserve, has_own_reserve());
        return text;
    }

  private:
    bool has_own_reserve() const { return n_recent > 0 && n_reserve != kReserveByLength; }
};

}  // namespace tq
