// The attention calls that the shaders are compared on with the CPU's kernels. Each shape of a kernel is compiled for
// them (instances.cpp prints which).
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "tests/support/attention_cases.h"

namespace tq::test {

inline bool has_shaders(const AttentionCase& c) {
    return c.max_bias == 0;
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
    for (int bits : {3, 4, 5}) {
        cases.push_back({64, 64, 4, 2, 1, 300, centered(trellis(bits)), trellis(bits), M::kHoles});
        cases.push_back({128, 128, 4, 1, 1, 130, trellis(bits), trellis(bits)});
        cases.push_back({80, 112, 2, 3, 10, 70, trellis(bits), trellis(bits), M::kCausal});
    }
    // Prompts: 17 rows and more.
    cases.push_back({64, 64, 4, 1, 5, 300, 4, 4, M::kHoles});
    cases.push_back({128, 128, 4, 2, 20, 600, 4, 4, M::kCausal, 2, 0, true});
    cases.push_back({80, 96, 1, 3, 70, 140, 5, 3, M::kCausal});
    cases.push_back({256, 256, 8, 1, 5, 130, 4, 4, M::kCausal});
    cases.push_back({256, 256, 3, 1, 9, 130, 3, 7, M::kCausal, 1, 0, false, 30});
    cases.push_back({96, 80, 2, 2, 17, 257, centered(6), 6, M::kBias});
    cases.push_back({64, 64, 2, 1, 33, 200, 8, 8, M::kSomeRowsFullyMasked, 1, 0, true});
    for (int bits : {2, 3, 5, 7}) cases.push_back({64, 64, 1, 1, 17, 70, bits, bits, M::kCausal});
    // Block, span and chunk borders, and one cell beside them.
    for (int border : {64, 128, 256, 512, 1024, 4096})
        for (int n_kv : {border - 1, border, border + 1}) {
            cases.push_back({64, 64, 4, 1, 1, std::min(n_kv, 4096), 4, 4, M::kHoles});
            if (border <= 512) cases.push_back({128, 128, 4, 2, 3, n_kv, centered(3), 5, M::kCausal});
        }
    for (int n_kv = 1; n_kv <= 5; ++n_kv) cases.push_back({128, 128, 8, 1, 1, n_kv, centered(4), 4});
    return cases;
}

// Calls whose masks, lengths, records and element types the tests vary.
inline std::vector<AttentionCase> varied_attention_cases() {
    return {{64, 64, 4, 2, 3, 700, 4, 4, Mask::kNone, 3, 0, true},
            {80, 96, 2, 3, 5, 150, centered(3), 6, Mask::kNone, 2, 1},
            {128, 128, 8, 1, 1, 1100, 4, 4, Mask::kNone, 2, 0},
            {64, 128, 4, 1, 9, 580, centered(4), 4, Mask::kNone, 3, 0, true}};
}

// More than 65536 cells: super-chunks of two chunks.
inline AttentionCase long_attention_case() {
    return {16, 16, 1, 1, 1, 67200, 2, 2};
}

}  // namespace tq::test
