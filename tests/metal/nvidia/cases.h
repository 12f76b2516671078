// What is run on an NVIDIA GPU: a few of the cases that tests/metal run lane by lane, of every kind and width of codes.
#pragma once

#include <vector>

#include "tests/support/attention_cases.h"
#include "tests/support/packed_rows.h"

namespace tq::test {

inline std::vector<AttentionCase> nvidia_attention_cases() {
    using M = Mask;
    std::vector<AttentionCase> cases = {
        // K dim, V dim, group, KV heads, tokens, cells, K bits, V bits, mask, streams
        {128, 128, 4, 2, 1, 1100, 4, 4, M::kHoles, 3, 0, true},
        {128, 128, 4, 2, 1, 700, centered(4), 4, M::kHoles, 2},
        {80, 96, 2, 3, 2, 300, centered(3), 6, M::kCausal},
        {64, 64, 3, 2, 1, 300, trellis(4), trellis(4), M::kHoles},
        {128, 128, 4, 1, 9, 600, 4, 4, M::kCausal, 2},
    };
    cases[1].exact = {4, 8};
    for (int bits : {2, 3, 5, 6, 7, 8}) cases.push_back({64, 64, 2, 1, 1, 70, bits, bits});
    cases.push_back({64, 64, 4, 1, 2, 130, trellis(3), trellis(5), M::kCausal});
    cases.push_back({96, 80, 2, 2, 17, 257, centered(6), 6, M::kBias});
    return cases;
}

inline std::vector<PackedShape> nvidia_row_shapes() {
    std::vector<PackedShape> shapes = {{Side::kKey, centered(4), 128, 2},
                                       {Side::kValue, 4, 128, 2},
                                       {Side::kKey, 3, 80, 3},
                                       {Side::kKey, centered(trellis(4)), 64, 2},
                                       {Side::kValue, trellis(5), 80, 3}};
    for (PackedShape& shape : shapes) {
        shape.n_cells = 200;
        shape.n_stream = 2;
    }
    return shapes;
}

}  // namespace tq::test
