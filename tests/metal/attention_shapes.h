// The attention calls that the shaders are compared on with the CPU's kernels. Each shape of a kernel is compiled for
// them (instances.cpp prints which).
#pragma once

#include <vector>

#include "tests/support/attention_cases.h"

namespace tq::test {

inline bool has_shaders(const AttentionCase& c) {
    return !c.keys.trellis && !c.values.trellis && c.max_bias == 0;
}

// Those of the CPU's kernels that have shaders, and what is particular to these: rows of several threadgroups, every
// width of codes, the models' head_dims and group sizes.
inline std::vector<AttentionCase> metal_attention_cases() {
    using M = Mask;
    std::vector<AttentionCase> cases;
    for (const AttentionCase& c : attention_cases())
        if (has_shaders(c)) cases.push_back(c);
    for (int k = kMinBits; k <= kMaxBits; ++k)
        for (int v = kMinBits; v <= kMaxBits; ++v) cases.push_back({64, 64, 2, 1, 1, 70, k, v});
    for (int head_dim : {64, 80, 96, 128, 256})
        for (int group : {1, 3, 4, 8, 16}) cases.push_back({head_dim, head_dim, group, 2, 1, 200, 4, 4, M::kCausal});
    for (const auto& [k, v] : {std::pair{64, 128}, std::pair{128, 64}, std::pair{96, 256}, std::pair{256, 80}})
        cases.push_back({k, v, 4, 2, 2, 130, 4, 4, M::kCausal});
    for (int bits : {2, 3, 4, 5, 6, 7, 8}) cases.push_back({64, 64, 4, 2, 1, 300, centered(bits), 4, M::kHoles});
    return cases;
}

}  // namespace tq::test
