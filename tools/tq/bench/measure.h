// Times contestants round by round, in rotating order, so that whatever the machine does meanwhile hits all of them.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "bench/bandwidth.h"
#include "bench/contestant.h"

namespace tq::tool {

struct Measured {
    std::string name, label, description, isa;  // as contestants have them; isa empty: a rival
    double bits = 0;
    size_t layer_bytes = 0;
    int passes = 1;               // passes over all layers in one sample
    std::vector<double> us;       // one layer's time in each round
    std::optional<double> error;  // |output - f16's| / |f16's|, Euclidean; attention with an f16 rival only
    std::optional<uint64_t> digest;
};

struct Measurement {
    std::vector<double> read_gbps;  // GB/s read in each round
    std::vector<Measured> measured;
};

struct MeasureLimits {
    int rounds = 20;
    double max_seconds = 30;
};

// read may be null.
Measurement measure(const std::vector<std::unique_ptr<Contestant>>& contestants, ReadBandwidth* read, int64_t n_layer,
                    const MeasureLimits& limits);

}  // namespace tq::tool
