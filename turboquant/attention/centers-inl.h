// Centers of keys (codec/layout.h) as the kernels of keys take them: those of a run of 16 blocks are the first 16 cells
// of a packed tile of 4-bit keys, one vector of lanes.
#pragma once

#include <algorithm>
#include <cstring>

#include "turboquant/attention/tiles-inl.h"

namespace tq::attention_impl {

inline constexpr int kCenterRun = 16;                                              // blocks
inline constexpr int kCenterTileBytes = kCenterRun * kStepDims * kCenterBits / 8;  // bytes that a tile has

// One head's centers of one stream.
struct Centers {
    const uint8_t* first;  // center of block 0
    size_t stride;         // bytes to the next block's center
    size_t scales;         // bytes from a center to its scales
    int64_t n_blocks;
    int64_t first_dim;  // the head's first dim in the row
    int64_t n_dims;
};

static TQ_INLINE Centers centers_of_head(const PackedTensor& tensor, int64_t stream, int head_dim, int head_kv) {
    const PackedLayout& layout = tensor.codec->layout();
    if (!layout.centered) return {};
    return {tensor.data + layout.center_offset(stream, 0),
            layout.center_row_bytes(),
            layout.center_codes_bytes(),
            layout.n_blocks(),
            int64_t{head_kv} * head_dim,
            head_dim};
}

// A run is read once in 16 blocks, from as many places: nothing but this fetches it in time. One that does not exist
// does no harm.
static TQ_INLINE void prefetch_centers(const Centers& centers, int64_t run) {
    const uint8_t* center = centers.first + static_cast<size_t>(run * kCenterRun) * centers.stride;
    for (int cell = 0; cell < kCenterRun; ++cell, center += centers.stride) {
        const int64_t begin = centers.first_dim / 2, end = (centers.first_dim + centers.n_dims) / 2;
        for (int64_t byte = begin; byte < end; byte += 64) prefetch(center + byte);
        prefetch(center + end - 1);
        prefetch(center + centers.scales + centers.first_dim / group_dims(Side::kKey));
    }
}

// A run's codes and scales as tiles, behind each other in `out`. Where there is no block the scale is 0.
template <class Ops>
TQ_INLINE HeadTiles gather_centers(const Centers& centers, const HeadTiles& keys, int64_t run, uint8_t* out,
                                   uint8_t (*scales)[kCenterRun]) {
    const int64_t first_block = run * kCenterRun;
    const int n = static_cast<int>(smaller<int64_t>(kCenterRun, centers.n_blocks - first_block));
    const uint8_t* center = centers.first + static_cast<size_t>(first_block) * centers.stride;
    for (int s = 0; s < keys.segments.count; ++s) std::memset(scales[s], 0, kCenterRun);
    for (int cell = 0; cell < n; ++cell, center += centers.stride) {
        for (int s = 0; s < keys.segments.count; ++s)
            scales[s][cell] = center[centers.scales + keys.segments.at[s].group];
        const uint8_t* codes = center + centers.first_dim / 2;
        for (int word = 0; word < 2 * keys.n_steps; ++word)
            std::memcpy(out + 64 * word + 4 * cell, codes + 4 * word, 4);
    }
    prefetch_centers(centers, run + 1);
    HeadTiles tiles;
    tiles.source = kCenterBits;
    tiles.n_steps = keys.n_steps;
    tiles.segments = keys.segments;
    for (int step = 0; step < keys.n_steps; ++step) tiles.tiles[step] = {out + kCenterTileBytes * step, 0};
    for (int s = 0; s < keys.segments.count; ++s) tiles.scales[s] = {scales[s], 0};
    tiles.table = &centroid_table<Ops>(kCenterBits, Ops::kKeyBias);
    return tiles;
}

}  // namespace tq::attention_impl
