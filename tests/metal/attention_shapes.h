// The attention calls that the shaders are compared on with the CPU's kernels. Each shape of a kernel is compiled for
// them (instances.cpp prints which).
#pragma once

#include <vector>

#include "tests/support/attention_problem.h"

namespace tq::test {

inline std::vector<AttentionCase> metal_attention_cases() {
    using M = Mask;
    return {
        // K dim, V dim, group, KV heads, tokens, cells, K bits, V bits, mask
        {64, 64, 4, 1, 1, 64, 4, 4},
        {64, 64, 4, 2, 1, 1300, 4, 4},
        {128, 128, 4, 1, 1, 513, 4, 4},
    };
}

}  // namespace tq::test
