// Contestants are timed side by side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tq::tool {

// One system at one task. All contestants of a case work on the same numbers and on as many layers.
class Contestant {
  public:
    virtual ~Contestant() = default;

    // Runs all layers once; seconds. Threads are awake before the clock starts.
    virtual double run() = 0;

    // The result of the last layer, to compare with others'; empty: none.
    virtual std::vector<float> output() const { return {}; }

    // A number for the bits of the result: the same for any number of threads. Empty: the system does not promise that.
    virtual std::optional<uint64_t> digest() { return std::nullopt; }

    std::string name;                // compact name of a preset, or of a ggml type
    std::string label, description;  // ours, for people: "fast", "k4v4 centered, sinks=1 window=15"
    std::string isa;                 // ours; empty: a rival
    double bits = 0;                 // bits per value, everything counted
    size_t layer_bytes = 0;          // read (attention) or written (encode) in one layer
};

}  // namespace tq::tool
