// A packed tensor with its codec, for tests.
#pragma once

#include <cmath>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/bytes.h"
#include "tests/support/random.h"
#include "turboquant/codec/row_codec.h"

namespace tq::test {

// A packed tensor is made for this; `isa` picks the kernels.
// Coding says how values are coded: 4 is 4 bits each, trellis(4) the trellis codes of 4 bits, centered(...) around a
// block's center.
struct Coding {
    constexpr Coding(int bits, bool trellis = false, bool centered = false)  // NOLINT: implicit
        : bits(bits), trellis(trellis), centered(centered) {}
    int bits;
    bool trellis, centered;
};
constexpr Coding trellis(int bits) {
    return {bits, true};
}
constexpr Coding centered(Coding coding) {
    return {coding.bits, coding.trellis, true};
}
inline std::ostream& operator<<(std::ostream& out, const Coding& c) {
    return out << c.bits << (c.centered ? "c" : "") << (c.trellis ? "t" : "");
}
inline std::vector<Coding> all_codings() {
    std::vector<Coding> codings;
    for (int bits = kMinBits; bits <= kMaxBits; ++bits) codings.emplace_back(bits);
    for (int bits = kMinTrellisBits; bits <= kMaxTrellisBits; ++bits) codings.push_back(trellis(bits));
    return codings;
}

struct PackedShape {
    Side side = Side::kKey;
    Coding coding = 4;
    int head_dim = 128;
    int n_head = 1;
    int64_t n_cells = 1;
    int64_t n_stream = 1;
};

inline std::string side_name(Side side) {
    return side == Side::kKey ? "K" : "V";
}

// Makes parameter names and failure messages readable.
inline void PrintTo(const PackedShape& s, std::ostream* out) {
    *out << side_name(s.side) << s.coding << " " << s.n_head << "x" << s.head_dim;
}

inline PackedLayout make_layout(const PackedShape& s) {
    return PackedLayout::create(s.side, s.coding.bits, int64_t{s.n_head} * s.head_dim, s.n_cells, s.n_stream,
                                s.coding.trellis, s.coding.centered)
        .value();
}

// n channel scales of a wild calibration: 1/8 to 8.
inline std::vector<float> random_scales(int64_t n, Random& random) {
    std::vector<float> scales;
    for (int64_t i = 0; i < n; ++i) scales.push_back(static_cast<float>(std::exp2(6 * random.uniform() - 3)));
    return scales;
}

class PackedRows {
  public:
    // scales: of the row's channels, or none.
    explicit PackedRows(const PackedShape& shape, Isa isa = available_isas().back(),
                        const std::vector<float>& scales = {})
        : codec(RowCodec::create(make_layout(shape), shape.head_dim, isa, scales).value()),
          bytes(codec.layout().bytes()) {}

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
            extract_codes(layout, in_block, bytes.data() + layout.tile_offset(stream, step, block),
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
