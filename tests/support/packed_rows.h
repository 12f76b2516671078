// A packed tensor with its codec, for tests.
#pragma once

#include <cmath>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/bytes.h"
#include "tests/support/random.h"
#include "turboquant/cache/packed_tensor.h"
#include "turboquant/cpu/codec/row_codec.h"
#include "turboquant/cpu/engine.h"

namespace tq::test {

// A packed tensor is made for this; `isa` picks the kernels.
// Codes says how values are coded: 4 is 4 bits each, trellis(4) the trellis codes of 4 bits, centered(...) around a
// block's center.
struct Codes {
    constexpr Codes(int bits, bool trellis = false, bool centered = false)  // NOLINT: implicit
        : bits(bits), trellis(trellis), centered(centered) {}
    int bits;
    bool trellis, centered;
};
constexpr Codes trellis(int bits) {
    return {bits, true};
}
constexpr Codes centered(Codes coding) {
    return {coding.bits, coding.trellis, true};
}
inline std::ostream& operator<<(std::ostream& out, const Codes& c) {
    return out << c.bits << (c.centered ? "c" : "") << (c.trellis ? "t" : "");
}
inline std::vector<Codes> all_codings() {
    std::vector<Codes> codings;
    for (int bits = kMinBits; bits <= kMaxBits; ++bits) codings.emplace_back(bits);
    for (int bits = kMinTrellisBits; bits <= kMaxTrellisBits; ++bits) codings.push_back(trellis(bits));
    return codings;
}

struct PackedShape {
    Side side = Side::kKey;
    Codes coding = 4;
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

inline RowFormat make_format(Side side, Codes codes, int64_t n_embd) {
    return RowFormat::create(side, codes.bits, n_embd, coding_of(codes.trellis, codes.centered)).value();
}
inline RowFormat make_format(const PackedShape& s) {
    return make_format(s.side, s.coding, int64_t{s.n_head} * s.head_dim);
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
        : codec(RowCodec::create(make_format(shape), shape.head_dim, isa, scales).value()),
          n_cells(shape.n_cells),
          n_stream(shape.n_stream),
          bytes(static_cast<size_t>(n_records()) * codec.format().block_bytes()) {}

    int64_t n_records() const { return n_stream * blocks_of_cells(n_cells); }
    PackedTensor tensor() const { return {&codec, bytes.data(), n_records(), n_cells, n_stream}; }
    ConstBlocks blocks(int64_t stream = 0) const { return tensor().blocks(stream); }
    Blocks blocks(int64_t stream = 0) {
        const ConstBlocks at = tensor().blocks(stream);
        return {bytes.data() + (at.first - bytes.data()), at.stride, nullptr};
    }

    void encode(const std::vector<float>& row, int64_t cell = 0, int64_t stream = 0) {
        codec.encode(row.data(), blocks(stream), cell);
    }
    std::vector<float> decode(int64_t cell = 0, int64_t stream = 0) const {
        std::vector<float> row(width());
        codec.decode(blocks(stream), cell, row.data());
        return row;
    }
    std::vector<float> encode_decode(const std::vector<float>& row) {
        encode(row);
        return decode();
    }
    void copy(int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell) {
        codec.copy(blocks(from_stream), from_cell, blocks(to_stream), to_cell);
    }
    int64_t width() const { return codec.format().n_embd; }

    // One cell's codes and scale codes, nothing else.
    Bytes cell_bytes(int64_t cell, int64_t stream = 0) const {
        const RowFormat& format = codec.format();
        const uint8_t* record = blocks(stream).at(cell / kBlockCells);
        const int in_block = static_cast<int>(cell % kBlockCells);
        Bytes result(format.n_embd);
        for (int64_t step = 0; step < format.n_steps(); ++step)
            extract_codes(format, in_block, record + tile_offset(format, step), result.data() + step * kStepDims);
        for (int64_t group = 0; group < format.n_groups(); ++group)
            result.push_back(record[scale_offset(format, group) + in_block]);
        return result;
    }

    RowCodec codec;
    int64_t n_cells, n_stream;
    Bytes bytes;  // the records
};

}  // namespace tq::test
