// Centers of keys (codec/layout.h) as the kernels of keys take them: a run of 16 blocks' centers is a quarter of a tile of
// int8 centroids, 16 cells of one vector of lanes.
#pragma once

#include <algorithm>
#include <cstring>

#include "turboquant/attention/tiles-inl.h"

namespace tq::attention_impl {

inline constexpr int kCenterRun = 16;   // blocks

// One head's centers of one stream.
struct Centers {
    const uint8_t* first;   // of block 0
    size_t stride;          // to the next block's
    size_t scales;          // from a center to its scales
    int64_t n_blocks;
    int64_t first_dim;      // of the head, in the row
    int n_steps;
    CentroidTable table;
};

static TQ_INLINE Centers centers_of_head(const PackedTensor& tensor, int64_t stream, int head_dim, int head_kv, int bias) {
    const PackedLayout& layout = tensor.codec->layout();
    if (!layout.centered) return {};
    return {tensor.data + layout.center_offset(stream, 0), layout.center_row_bytes(), layout.center_codes_bytes(), layout.n_blocks(),
            int64_t{head_kv} * head_dim, head_dim / kStepDims, centroid_table(kCenterBits, bias)};
}

// A run's centers into `out`, tiles kTileValues apart of which the first 4 units are used; `tiles` gets to describe them.
static TQ_INLINE void decode_centers(const Centers& centers, const Segments& segments, int64_t run, uint8_t* out,
                                     uint8_t (*scales)[kCenterRun], HeadTiles& tiles) {
    const int64_t first_block = run * kCenterRun;
    const int n = static_cast<int>(std::min<int64_t>(kCenterRun, centers.n_blocks - first_block));
    const uint8_t* center = centers.first + static_cast<size_t>(first_block) * centers.stride;
    for (int cell = 0; cell < kCenterRun; ++cell, center += centers.stride) {
        const bool exists = cell < n;
        for (int s = 0; s < segments.count; ++s) scales[s][cell] = exists ? center[centers.scales + segments.at[s].group] : 0;
        for (int step = 0; step < centers.n_steps; ++step) {
            uint8_t* tile = out + kTileValues * step + 4 * cell;
            uint8_t levels[kStepDims] = {};
            const uint8_t* codes = center + (centers.first_dim + kStepDims * step) / 2;
            for (int i = 0; exists && i < kStepDims / 2; ++i) {
                levels[2 * i] = centers.table.bytes[codes[i] & 15];
                levels[2 * i + 1] = centers.table.bytes[codes[i] >> 4];
            }
            for (int unit = 0; unit < 4; ++unit) std::memcpy(tile + 64 * unit, levels + 4 * unit, 4);
        }
    }
    tiles.segments = segments;
    for (int step = 0; step < centers.n_steps; ++step) {
        tiles.continues[step] = false;
        tiles.tiles[step] = {out + kTileValues * step, 0};
    }
    for (int s = 0; s < segments.count; ++s) tiles.scales[s] = {scales[s], 0};
}

}  // namespace tq::attention_impl
