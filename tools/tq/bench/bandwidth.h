// This measures how fast these threads can read memory: the ceiling of decoding.
#pragma once

#include "bench/contestant.h"
#include "bench/memory.h"
#include "bench/team.h"

namespace tq::tool {

// A streaming read: every thread sums its part of a buffer far beyond the caches.
class ReadBandwidth {
  public:
    ReadBandwidth(size_t bytes, ThreadTeam& team);

    double run();  // seconds
    size_t bytes() const { return words_ * sizeof(uint64_t); }

  private:
    ThreadTeam& team_;
    size_t words_;
    Memory memory_;
    std::vector<uint64_t> sums_;
};

}  // namespace tq::tool
