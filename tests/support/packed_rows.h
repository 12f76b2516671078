// A packed tensor with its codec, for tests.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/support/bytes.h"
#include "turboquant/codec/row_codec.h"

namespace tq::test {

// What a packed tensor is made for; `isa` picks the kernels.
struct PackedShape {
    Side side = Side::kKey;
    int bits = 4;
    int head_dim = 128;
    int n_head = 1;
    int64_t n_cells = 1;
    int64_t n_stream = 1;
};

inline std::string side_name(Side side) {
    return side == Side::kKey ? "K" : "V";
}

// For readable parameter names and failure messages.
inline void PrintTo(const PackedShape& s, std::ostream* out) {
    *out << side_name(s.side) << s.bits << " " << s.n_head << "x" << s.head_dim;
}

inline PackedLayout make_layout(const PackedShape& s) {
    return PackedLayout::create(s.side, s.bits, int64_t{s.n_head} * s.head_dim, s.n_cells, s.n_stream).value();
}

class PackedRows {
  public:
    explicit PackedRows(const PackedShape& shape, Isa isa = available_isas().back())
        : codec(RowCodec::create(make_layout(shape), shape.head_dim, isa).value()), bytes(codec.layout().bytes()) {}

    void encode(const std::vector<float>& row, int64_t cell = 0, int64_t stream = 0) {
        codec.encode(row.data(), bytes.data(), stream, cell);
    }
    std::vector<float> decode(int64_t cell = 0, int64_t stream = 0) const {
        std::vector<float> row(codec.layout().n_embd);
        codec.decode(bytes.data(), stream, cell, row.data());
        return row;
    }
    std::vector<float> encode_decode(const std::vector<float>& row) {
        encode(row);
        return decode();
    }
    int64_t width() const { return codec.layout().n_embd; }

    // One cell's codes and scale codes, nothing else.
    Bytes cell_bytes(int64_t cell, int64_t stream = 0) const {
        const PackedLayout& layout = codec.layout();
        const int64_t block = cell / kBlockCells;
        const int in_block = static_cast<int>(cell % kBlockCells);
        Bytes result(layout.n_embd);
        for (int64_t step = 0; step < layout.n_steps(); ++step) {
            extract_codes(layout.side, layout.bits, in_block, bytes.data() + layout.tile_offset(stream, step, block),
                          result.data() + step * kStepDims);
        }
        for (int64_t group = 0; group < layout.n_groups(); ++group) {
            result.push_back(bytes[layout.scale_offset(stream, group, block) + in_block]);
        }
        return result;
    }

    RowCodec codec;
    Bytes bytes;
};

}  // namespace tq::test
