// Which cells keep their rows as they came (f16) beside the codes: "+sink4+recent64" behind a preset.
#pragma once

#include <cstdint>
#include <string>

namespace tq {

inline constexpr int kMaxExactCells = 65536;   // of each kind

struct ExactCells {
    int n_sink = 0;     // the first cells of a stream, whose keys much attention rests on
    int n_recent = 0;   // of a query: the rows that were written last, its own among them

    bool any() const { return n_sink > 0 || n_recent > 0; }
    int64_t n_slots() const { return int64_t{n_sink} + n_recent; }   // rows that a stream keeps
    // "+sink4+recent64"; "" if there are none.
    std::string name() const {
        return (n_sink > 0 ? "+sink" + std::to_string(n_sink) : "") + (n_recent > 0 ? "+recent" + std::to_string(n_recent) : "");
    }
};

}  // namespace tq
