// Levels of codes as the shaders compute them.
#include "turboquant/metal/half_tile.h"

namespace tq {

// Numbers i, 0 to n - 1, as levels: four a lane.
template <int codes>
[[kernel]] void levels(device float4* out [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    out[i] = Levels<codes>::of(float4(4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3) - middle_of(codes));
}

// A half tile of scalar codes, whose words are all `word`: the centroids of its 8 units, lane by lane.
template <int codes>
[[kernel]] void fields(device const uchar* tile [[buffer(0)]], device float4* out [[buffer(1)]],
                       uint lane [[thread_index_in_simdgroup]]) {
    HalfTile<codes> half_tile;
    half_tile.load(Side::kKey, half_tile_place(tile, false, lane / 16, lane % 16));
    for (int unit = 0; unit < 8; ++unit) out[8 * lane + unit] = half_tile.centroids(unit);
}

#define LEVELS(n)                                                                                 \
    template [[host_name("levels_" #n)]] [[kernel]] decltype(levels<n>) levels<n>;                \
    template [[host_name("fields_" #n)]] [[kernel]] decltype(fields<n>) fields<n>;
LEVELS(2)
LEVELS(3)
LEVELS(4)
LEVELS(5)
LEVELS(6)
LEVELS(7)
LEVELS(8)
LEVELS(19)
LEVELS(20)
LEVELS(21)

}  // namespace tq
