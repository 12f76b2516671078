// The rows that append and decode are compared on with the CPU's codec.
#pragma once

#include <vector>

#include "tests/support/packed_rows.h"
#include "turboquant/metal/launch.h"

namespace tq::test {

inline std::vector<PackedShape> metal_row_shapes() {
    std::vector<PackedShape> shapes;
    for (int bits = kMinBits; bits <= kMaxBits; ++bits) {
        shapes.push_back({Side::kKey, bits, 64, 2});
        shapes.push_back({Side::kKey, centered(bits), 64, 2});
        shapes.push_back({Side::kValue, bits, 64, 2});
    }
    for (int bits = kMinTrellisBits; bits <= kMaxTrellisBits; ++bits) {
        shapes.push_back({Side::kKey, centered(trellis(bits)), 64, 2});
        shapes.push_back({Side::kKey, trellis(bits), 80, 3});
        shapes.push_back({Side::kValue, trellis(bits), 64, 2});
        shapes.push_back({Side::kValue, trellis(bits), 80, 3});
    }
    for (int head_dim : {16, 48, 80, 96, 128, 256}) {
        shapes.push_back({Side::kKey, 4, head_dim, 3});
        shapes.push_back({Side::kKey, centered(3), head_dim, 3});
        shapes.push_back({Side::kValue, 5, head_dim, 3});
    }
    for (PackedShape& shape : shapes) {
        shape.n_cells = 200;
        shape.n_stream = 2;
    }
    return shapes;
}

inline MetalRows metal_rows(const PackedShape& shape) {
    MetalRows rows;
    rows.format = make_format(shape);
    rows.head_dim = shape.head_dim;
    rows.rows = {shape.n_cells * rows.format.n_embd, rows.format.n_embd, shape.head_dim};
    rows.n_cells = rows.n_rows = shape.n_cells;
    rows.n_stream = shape.n_stream;
    return rows;
}

}  // namespace tq::test
