// This is what a calibration knows of a model: how large its keys, values and queries are, channel by channel, where it
// matters.
#pragma once

#include <map>
#include <vector>

#include "inspect/capture.h"

namespace tq::tool {

// Sums of squared values over tokens, each token weighted by what an error in it does to attention's output: with p the
// share of a key in a query's attention, an error in their logit counts p (1 - p), one in the value p^2. So a text's
// first token, which most queries look at, counts as much as many others. Keys and values: of each channel of a row.
// Queries: summed over the heads of a KV head.
struct LayerEnergies {
    int head_dim_k = 0, head_dim_v = 0;
    int n_head = 0;  // query heads
    std::vector<double> keys, values, queries;
    std::vector<double> centered_keys;  // keys less the mean of the block before, as centered presets store them

    void make_room(const CapturedLayer& layer);
    // Adds what one KV head has to its own channels: different threads may add different heads.
    void add_head(const CapturedLayer& layer, size_t head_kv);
};

using Energies = std::map<int, LayerEnergies>;  // keyed by layer

// Adds a text that one causal sequence has read. The sums are the same for any number of threads.
void add(const Captured& captured, int n_threads, Energies& energies);

}  // namespace tq::tool
