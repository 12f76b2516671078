// The shapes that attention is tested on. Scalar kernels run them too, also under sanitizers: keep them small.
#pragma once

#include <vector>

#include "tests/support/attention_problem.h"

namespace tq::test {

inline std::vector<AttentionCase> attention_cases() {
    using M = Mask;
    return {
        // K dim, V dim, group, KV heads, tokens, cells, K bits, V bits, mask
        {16, 16, 1, 1, 1, 1, 2, 2},
        {16, 64, 2, 3, 2, 63, 3, 8, M::kCausal},
        {64, 64, 1, 1, 1, 64, 4, 4},
        {64, 80, 3, 2, 7, 65, 5, 3, M::kCausal},
        {80, 64, 4, 1, 2, 511, 6, 5, M::kHoles},
        {96, 96, 5, 1, 1, 512, 7, 6},
        {112, 112, 7, 1, 2, 513, 8, 7, M::kCausal},
        {128, 128, 8, 1, 1, 1300, 4, 4, M::kSlidingWindow},
        {192, 128, 16, 1, 2, 300, 3, 2, M::kCausal},
        {256, 256, 1, 2, 2, 513, 2, 4, M::kHoles},
        {512, 512, 2, 1, 1, 130, 4, 6},
        {64, 64, 71, 1, 1, 65, 4, 5},
        {128, 128, 1, 1, 33, 65, 4, 4, M::kCausal},
        {64, 128, 4, 2, 33, 150, 8, 8, M::kSlidingWindow},
        {48, 240, 2, 3, 2, 70, 5, 4, M::kSomeRowsFullyMasked},
        {144, 176, 1, 3, 7, 128, 7, 3, M::kBias},
        {64, 64, 2, 1, 2, 1300, 2, 2, M::kCausal, 1, 0, true},
        {64, 64, 2, 1, 7, 65, 6, 6, M::kSomeRowsFullyMasked, 1, 0, true},
        {64, 64, 4, 2, 2, 7, 5, 4, M::kCausal, 1, 0, true},
        {128, 64, 2, 2, 2, 100, 4, 4, M::kCausal, 2, 1},
        {64, 64, 1, 2, 7, 64, 3, 5, M::kHoles, 3, 2, true},
        {64, 64, 2, 2, 2, 200, 5, 5, M::kCausal, 1, 0, false, 30},
        {128, 128, 4, 1, 2, 513, 4, 4, M::kCausal, 2, 0, true, 5, 0},
        {64, 64, 4, 3, 7, 65, 4, 4, M::kCausal, 1, 0, false, 0, 8},
        {80, 80, 3, 2, 2, 513, 8, 8, M::kCausal, 1, 0, true, 20, 4},
        {64, 64, 2, 1, 2, 513, 8, 8, M::kCausal, 1, 0, false, 0, 0, 0.001f},
        {128, 128, 2, 1, 7, 600, 4, 4, M::kCausal, 1, 0, false, 0, 0, 4},
        // Trellis codes: one row, few, and so many that blocks are decoded first; chains that begin inside of a head,
        // and
        // that end in a narrower group.
        {64, 64, 3, 2, 1, 700, trellis(4), trellis(4), M::kHoles},
        {128, 128, 4, 1, 2, 300, trellis(3), trellis(3), M::kCausal},
        {64, 64, 1, 2, 40, 200, trellis(5), trellis(5), M::kCausal},
        {80, 80, 2, 3, 2, 150, trellis(4), trellis(3), M::kCausal, 2, 0, true},
        {96, 112, 1, 1, 1, 65, trellis(3), trellis(4)},
        {48, 144, 5, 3, 7, 130, trellis(5), trellis(4), M::kSlidingWindow},
        {256, 256, 4, 1, 33, 130, trellis(4), trellis(5), M::kCausal},
        {64, 64, 2, 1, 1, 100, 5, trellis(3)},
        {64, 64, 2, 1, 9, 100, trellis(5), 6, M::kCausal},
        // Centered keys: more than one run of 16 blocks, streams, heads that share groups, many rows, masked blocks.
        {64, 64, 3, 2, 1, 1300, centered(4), 4, M::kHoles},
        {128, 128, 4, 1, 2, 1100, centered(trellis(4)), trellis(4), M::kCausal, 2, 1},
        {80, 80, 2, 3, 2, 200, centered(3), trellis(3), M::kCausal, 1, 0, true},
        {64, 64, 1, 2, 40, 300, centered(8), 8, M::kSlidingWindow},
        {48, 112, 5, 1, 7, 130, centered(2), 4, M::kBias},
        {256, 256, 2, 1, 2, 200, centered(trellis(5)), 4, M::kSomeRowsFullyMasked, 1, 0, false, 20, 4},
        // Channel scales: heads of their own, groups across heads, all kinds of codes.
        {64, 64, 3, 2, 2, 200, 4, 4, M::kCausal, 1, 0, false, 0, 0, 1, true},
        {80, 112, 2, 3, 1, 600, centered(trellis(4)), trellis(3), M::kHoles, 2, 0, true, 0, 0, 1, true},
        {48, 64, 2, 2, 33, 150, centered(8), 8, M::kCausal, 1, 0, false, 20, 0, 1, true},
        // Exact rows: sinks, windows that are shorter and longer than the ubatch, every kind of mask, bias and coding.
        {64, 64, 3, 2, 1, 300, 2, 2, M::kCausal, 1, 0, false, 0, 0, 1, false, {4, 64}},
        {64, 80, 1, 2, 33, 150, 4, 4, M::kCausal, 1, 0, false, 0, 0, 1, false, {0, 20}},
        {128, 128, 4, 1, 7, 600, centered(2), 3, M::kHoles, 2, 1, true, 0, 0, 1, false, {100, 3}},
        {80, 48, 2, 3, 2, 130, centered(trellis(4)), trellis(3), M::kBias, 1, 0, false, 0, 0, 1, true, {1, 128}},
        {64, 64, 4, 1, 7, 65, 3, 5, M::kSomeRowsFullyMasked, 1, 0, true, 20, 0, 1, false, {2, 30}},
        {48, 64, 3, 1, 40, 120, 4, 4, M::kSlidingWindow, 1, 0, false, 0, 8, 1, false, {8, 16}},
        {64, 64, 2, 2, 3, 70, 2, 2, M::kNone, 1, 0, false, 0, 0, 1, false, {0, 200}},
        {64, 64, 2, 1, 2, 200, 2, 8, M::kCausal, 1, 0, false, 0, 0, 4, false, {16, 0}},
        {128, 128, 2, 1, 7, 600, 8, 8, M::kCausal, 1, 0, false, 0, 0, 0},
        {128, 128, 2, 1, 7, 600, 4, 4, M::kCausal, 1, 0, false, 0, 0, 0},
    };
}

// Every third of them: enough for an option that is the same code for all shapes, and a third of the time.
inline std::vector<AttentionCase> some_attention_cases() {
    std::vector<AttentionCase> some;
    const std::vector<AttentionCase> all = attention_cases();
    for (size_t i = 1; i < all.size(); i += 3) some.push_back(all[i]);
    return some;
}

}  // namespace tq::test
