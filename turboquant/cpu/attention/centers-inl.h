// Centers of keys (cpu/record.h) as the kernels of keys take them: those of a run of 16 blocks are the first 16 cells
// of a packed tile of 4-bit keys, one vector of lanes.
#pragma once

#include <algorithm>
#include <cstring>

#include "turboquant/cpu/attention/tiles-inl.h"

namespace tq::attention_impl {

inline constexpr int kCenterRun = 16;                                              // blocks
inline constexpr int kCenterTileBytes = kCenterRun * kStepDims * kCenterBits / 8;  // bytes that a tile has

// One head's centers of one stream.
struct Centers {
    ConstBlocks blocks;
    int64_t first_block, end_block;  // those of others are not read
    size_t codes, scales;            // bytes from a record's begin to the center's, of the row's first dim
    int64_t first_dim;               // the head's first dim in the row
    int64_t n_dims;
};

static TQ_INLINE Centers centers_of_head(const RowFormat& format, const ConstBlocks& blocks, int64_t first_block,
                                         int64_t end_block, int head_dim, int head_kv) {
    const size_t codes = center_offset(format);
    return {blocks,  first_block, end_block, codes, codes + format.center_codes_bytes(), int64_t{head_kv} * head_dim,
            head_dim};
}

// A run is read once in 16 blocks, from as many places: nothing but this fetches it in time.
static TQ_INLINE void prefetch_centers(const Centers& centers, int64_t run) {
    const int64_t end_block = smaller((run + 1) * kCenterRun, centers.end_block);
    for (int64_t block = larger(run * kCenterRun, centers.first_block); block < end_block; ++block) {
        const uint8_t* record = centers.blocks.at(block);
        const int64_t begin = centers.first_dim / 2, end = (centers.first_dim + centers.n_dims) / 2;
        for (int64_t byte = begin; byte < end; byte += 64) prefetch(record + centers.codes + byte);
        prefetch(record + centers.codes + end - 1);
        prefetch(record + centers.scales + centers.first_dim / group_dims(Side::kKey));
    }
}

// A run's codes and scales as a record, tiles and then scales, at `record`: (kCenterTileBytes + kCenterRun) bytes a
// step are enough. Where none is read the scale is 0.
template <class Ops>
TQ_INLINE HeadTiles gather_centers(const Centers& centers, const HeadTiles& keys, int64_t run, uint8_t* record) {
    uint8_t* scales = record + kCenterTileBytes * keys.n_steps;
    const int64_t first_block = run * kCenterRun;
    const int first = static_cast<int>(larger<int64_t>(0, centers.first_block - first_block));
    const int end = static_cast<int>(smaller<int64_t>(kCenterRun, centers.end_block - first_block));
    for (int s = 0; s < keys.segments.count; ++s) std::memset(scales + kCenterRun * s, 0, kCenterRun);
    for (int cell = first; cell < end; ++cell) {
        const uint8_t* from = centers.blocks.at(first_block + cell);
        for (int s = 0; s < keys.segments.count; ++s)
            scales[kCenterRun * s + cell] = from[centers.scales + keys.segments.at[s].group];
        const uint8_t* codes = from + centers.codes + centers.first_dim / 2;
        for (int word = 0; word < 2 * keys.n_steps; ++word)
            std::memcpy(record + 64 * word + 4 * cell, codes + 4 * word, 4);
    }
    prefetch_centers(centers, run + 1);
    HeadTiles tiles;
    tiles.source = kCenterBits;
    tiles.n_steps = keys.n_steps;
    tiles.segments = keys.segments;
    for (int step = 0; step < keys.n_steps; ++step) tiles.tiles[step] = static_cast<uint32_t>(kCenterTileBytes * step);
    for (int s = 0; s < keys.segments.count; ++s)
        tiles.scales[s] = static_cast<uint32_t>(kCenterTileBytes * keys.n_steps + kCenterRun * s);
    tiles.table = &centroid_table<Ops>(kCenterBits, Ops::kKeyBias);
    return tiles;
}

}  // namespace tq::attention_impl
