// Calls that reach every barrier of the shaders, for shader_faults_test.cpp.
#pragma once

#include "attention_shapes.h"
#include "row_shapes.h"

namespace tq::test {

inline std::vector<AttentionCase> shader_fault_attention_cases() {
    std::vector<AttentionCase> cases = {
        {64, 64, 4, 1, 1, 600, 4, 4, Mask::kHoles, 1, 0, true},  // decoding, sink logits
        {64, 64, 2, 1, 1, 600, centered(4), 8, Mask::kHoles},    // weights of two digits
        {64, 64, 4, 1, 12, 600, 4, 4, Mask::kCausal},            // many rows
        {64, 64, 4, 1, 12, 300, centered(5), 4, Mask::kCausal}};
    for (AttentionCase& c : cases) c.exact = {4, 8};
    return cases;
}

inline std::vector<PackedShape> shader_fault_row_shapes() {
    // A slice of 256 dims is so wide that two SIMD groups put one cell's codes into the record.
    std::vector<PackedShape> shapes = {
        {Side::kKey, centered(4), 256, 1}, {Side::kValue, 5, 80, 3}, {Side::kKey, centered(trellis(4)), 64, 2}};
    for (PackedShape& shape : shapes) shape.n_cells = 200;
    return shapes;
}

}  // namespace tq::test
