// Rotation, and encoding and decoding rows of one head.
#include <new>

#include "micro.h"
#include "turboquant/cpu/codec/row_codec.h"

namespace tq::bench {
namespace {

constexpr int64_t kCells = 256;  // rows in turn; their codes fit into any cache

struct Codes {
    int bits;
    bool trellis = false, centered = false;
};

std::string name_of(Side side, Codes c) {
    return (side == Side::kKey ? "k" : "v") + std::to_string(c.bits) + (c.centered ? "c" : "") + (c.trellis ? "t" : "");
}

RowCodec make_codec(Side side, Codes c, int head_dim, Isa isa) {
    return must(RowCodec::create(must(RowFormat::create(side, c.bits, head_dim, coding_of(c.trellis, c.centered))),
                                 head_dim, isa));
}

struct Rows {
    Rows(Side side, Codes coding, int head_dim, Isa isa)
        : codec(make_codec(side, coding, head_dim, isa)),
          floats(gaussian(kCells * head_dim, 1)),
          packed(kCells / kBlockCells * codec.format().block_bytes()) {
        for (int64_t cell = 0; cell < kCells; ++cell) codec.encode(row(cell), blocks(), cell);
    }
    Blocks blocks() { return {packed.data(), codec.format().block_bytes()}; }
    float* row(int64_t cell) { return floats.data() + cell * codec.head_dim(); }

    RowCodec codec;
    std::vector<float> floats;
    std::vector<uint8_t> packed;
};

void rotate(benchmark::State& state, int head_dim, Isa isa) {
    const Rotation rotation = must(Rotation::create(head_dim));
    std::vector<float> row = gaussian(head_dim, 1);
    for (auto _ : state) {
        codec_kernels(isa).rotate_row(rotation, row.data(), row.data());
        benchmark::DoNotOptimize(row.data());
    }
    state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * head_dim);
}

void encode(benchmark::State& state, Side side, Codes coding, int head_dim, Isa isa) {
    Rows rows(side, coding, head_dim, isa);
    int64_t cell = 0;
    for (auto _ : state) {
        rows.codec.encode(rows.row(cell), rows.blocks(), cell);
        cell = (cell + 1) % kCells;
    }
    state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * head_dim);
}

void decode(benchmark::State& state, Side side, Codes coding, int head_dim, Isa isa) {
    Rows rows(side, coding, head_dim, isa);
    int64_t cell = 0;
    for (auto _ : state) {
        rows.codec.decode(rows.blocks(), cell, rows.row(cell));
        cell = (cell + 1) % kCells;
    }
    state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * head_dim);
}

// Whole blocks, as a state is saved or a dense copy is made.
void decode_blocks(benchmark::State& state, Side side, Codes coding, int head_dim, Isa isa) {
    Rows rows(side, coding, head_dim, isa);
    int64_t block = 0;
    for (auto _ : state) {
        rows.codec.decode_block(rows.blocks(), block, 0, kBlockCells, rows.row(block * kBlockCells));
        block = (block + 1) % (kCells / kBlockCells);
    }
    state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * head_dim * kBlockCells);
}

void register_rows(Side side, Codes coding, int head_dim) {
    const std::string what = name_of(side, coding) + "/dim:" + std::to_string(head_dim);
    for_each_isa("encode", what, [=](benchmark::State& state, Isa isa) { encode(state, side, coding, head_dim, isa); });
    for_each_isa("decode", what, [=](benchmark::State& state, Isa isa) { decode(state, side, coding, head_dim, isa); });
    for_each_isa("decode_block", what,
                 [=](benchmark::State& state, Isa isa) { decode_blocks(state, side, coding, head_dim, isa); });
}

}  // namespace

void register_codec() {
    for (int head_dim : {64, 80, 128, 256}) {
        for_each_isa("rotate", "dim:" + std::to_string(head_dim),
                     [=](benchmark::State& state, Isa isa) { rotate(state, head_dim, isa); });
    }
    for (Side side : {Side::kKey, Side::kValue}) {
        for (int bits : {2, 3, 4, 5, 6, 8}) register_rows(side, {bits}, 128);
        for (int bits : {3, 4, 5}) register_rows(side, {bits, true}, 128);
        for (int head_dim : {64, 256}) register_rows(side, {4}, head_dim);
    }
    for (Codes coding : {Codes{4, false, true}, {8, false, true}, {4, true, true}})
        register_rows(Side::kKey, coding, 128);
}

}  // namespace tq::bench
