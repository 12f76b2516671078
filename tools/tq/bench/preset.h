// A preset as one layer has it.
#pragma once

#include <string>

#include "turboquant/format/exact_cells.h"
#include "turboquant/format/preset.h"

namespace tq::tool {

struct BenchPreset {
    Preset codes;
    ExactCells exact;
    std::string label, description;  // for people: "fast", "k4v4 centered, sinks=1 window=15"

    std::string name() const { return codes.name() + exact.name(); }
};

// Error: kInvalidArgument, also of a preset that differs by layer.
Result<BenchPreset> parse_bench_preset(const std::string& text);

}  // namespace tq::tool
