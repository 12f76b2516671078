// What a calibration knows of a model: how large its keys, values and queries are, channel by channel.
#pragma once

#include <map>
#include <vector>

#include "inspect/capture.h"

namespace tq::tool {

// Sums over tokens of squared values. Keys and values: of each channel of a row. Queries: summed over the heads of a KV head.
// The first token of a text is left out: a sink for attention, its key and value are unlike any other.
struct LayerEnergies {
    int head_dim_k = 0, head_dim_v = 0;
    int n_head = 0;                      // of queries
    std::vector<double> keys, values, queries;
    std::vector<double> centered_keys;   // less the mean of the 64 tokens before their block, as centered presets store them

    void add(const CapturedLayer& layer);
};

using Energies = std::map<int, LayerEnergies>;   // by layer

}  // namespace tq::tool
