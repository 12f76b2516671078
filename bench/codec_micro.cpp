// Rotation, and encoding and decoding rows of one head.
#include <new>

#include "micro.h"
#include "turboquant/codec/row_codec.h"

namespace tq::bench {
namespace {

constexpr int64_t kCells = 256;  // rows in turn; their codes fit into any cache

RowCodec make_codec(Side side, int bits, int head_dim, Isa isa) {
    return must(RowCodec::create(must(PackedLayout::create(side, bits, head_dim, kCells, 1)), head_dim, isa));
}

struct Rows {
    Rows(Side side, int bits, int head_dim, Isa isa)
        : codec(make_codec(side, bits, head_dim, isa)),
          floats(gaussian(kCells * head_dim, 1)),
          packed(codec.layout().bytes()) {
        for (int64_t cell = 0; cell < kCells; ++cell) codec.encode(row(cell), packed.data(), 0, cell);
    }
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

void encode(benchmark::State& state, Side side, int bits, int head_dim, Isa isa) {
    Rows rows(side, bits, head_dim, isa);
    int64_t cell = 0;
    for (auto _ : state) {
        rows.codec.encode(rows.row(cell), rows.packed.data(), 0, cell);
        cell = (cell + 1) % kCells;
    }
    state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * head_dim);
}

void decode(benchmark::State& state, Side side, int bits, int head_dim, Isa isa) {
    Rows rows(side, bits, head_dim, isa);
    int64_t cell = 0;
    for (auto _ : state) {
        rows.codec.decode(rows.packed.data(), 0, cell, rows.row(cell));
        cell = (cell + 1) % kCells;
    }
    state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * head_dim);
}

void register_rows(Side side, int bits, int head_dim) {
    const std::string what =
        std::string(side == Side::kKey ? "k" : "v") + std::to_string(bits) + "/dim:" + std::to_string(head_dim);
    for_each_isa("encode", what, [=](benchmark::State& state, Isa isa) { encode(state, side, bits, head_dim, isa); });
    for_each_isa("decode", what, [=](benchmark::State& state, Isa isa) { decode(state, side, bits, head_dim, isa); });
}

}  // namespace

void register_codec() {
    for (int head_dim : {64, 80, 128, 256}) {
        for_each_isa("rotate", "dim:" + std::to_string(head_dim),
                     [=](benchmark::State& state, Isa isa) { rotate(state, head_dim, isa); });
    }
    for (Side side : {Side::kKey, Side::kValue}) {
        for (int bits : {2, 3, 4, 5, 6, 8}) register_rows(side, bits, 128);
        for (int head_dim : {64, 256}) register_rows(side, 4, head_dim);
    }
}

}  // namespace tq::bench
