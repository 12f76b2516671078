// What scripts/metal-cost counts: the loops of the attend kernel, each once, with as many rows as ROWS.
#include "turboquant/metal/attend.metal"

namespace tq {

// 32 keys: 16 dims of the lane's two cells.
template <int codes>
[[kernel]] void cost_keys(device const uchar* tile [[buffer(0)]], threadgroup const half* queries [[threadgroup(0)]],
                          device float2* out [[buffer(1)]], uint lane [[thread_index_in_simdgroup]]) {
    HalfTile<codes> keys;
    keys.load(Side::kKey, half_tile_place(tile, true, lane / 16, lane % 16));
    float2 products[ROWS];
    for (int r = 0; r < ROWS; ++r) products[r] = out[r];
    add_products<128, codes, ROWS>(keys, queries, products);
    for (int r = 0; r < ROWS; ++r) out[r] = products[r];
}

// 64 values: 32 cells of the lane's two dims.
template <int codes>
[[kernel]] void cost_values(device const uchar* tiles [[buffer(0)]], threadgroup const half* weights [[threadgroup(0)]],
                            device float* out [[buffer(1)]], uint lane [[thread_index_in_simdgroup]]) {
    constexpr int digits = attend_digits(bits_of(codes));
    HalfTile<codes> values[2];
    for (int s = 0; s < 2; ++s)
        values[s].load(Side::kValue, half_tile_place(tiles + s * bytes_of_tile<uint>(bits_of(codes)), true, 0, lane % 16));
    float sums[2 * digits * ROWS];
    for (int i = 0; i < 2 * digits * ROWS; ++i) sums[i] = out[i];
    add_weighted<codes, ROWS, digits, 2>(values, weights, sums);
    for (int i = 0; i < 2 * digits * ROWS; ++i) out[i] = sums[i];
}

// Scales of a group of 32 dims for the lane's two cells, and the products times these.
[[kernel]] void cost_scales(device const uchar* scales [[buffer(0)]], device float2* sums [[buffer(1)]],
                            device const float2* products [[buffer(2)]]) {
    const float2 scale = float2(scale_from_code(scales[0]), scale_from_code(scales[16]));
    for (int r = 0; r < ROWS; ++r) sums[r] = metal::fma(products[r], scale, sums[r]);
}

// The softmax of the lane's two cells of a block, without what lanes exchange: logits, probabilities, their sum.
[[kernel]] void cost_softmax(device float2* x [[buffer(0)]], device const float2* masks [[buffer(1)]],
                             device float* of_rows [[buffer(2)]]) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const float2 logits = metal::fma(x[r], float2(of_rows[r]), masks[r]);
        of_rows[8 + r] = greater_of(logits.x, logits.y);
        x[r] = float2(exp2_of(logits.x - of_rows[16 + r]), exp2_of(logits.y - of_rows[16 + r]));
        of_rows[24 + r] = x[r].x + x[r].y;
    }
}

// The weights of the lane's two cells for one group of values.
template <int digits>
[[kernel]] void cost_weights(device const float2* x [[buffer(0)]], device const uchar* scales [[buffer(1)]],
                             device float* of_rows [[buffer(2)]], device const float2* dither [[buffer(3)]],
                             threadgroup half* weights [[threadgroup(0)]]) {
    const float2 scale = float2(scale_from_code(scales[0]), scale_from_code(scales[16]));
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const float2 w = x[r] * scale;
        of_rows[8 + r] = greater_of(w.x, w.y);
        of_rows[r] = store_weights<digits>(w, of_rows[16 + r], dither[0], weights + 64 * r, 64 * ROWS);
    }
}

#define COST_INSTANCE(kernel, n) template [[host_name(#kernel "_" #n)]] [[kernel]] decltype(kernel<n>) kernel<n>;
#define COST_INSTANCES(kernel) \
    COST_INSTANCE(kernel, 2)   \
    COST_INSTANCE(kernel, 3)   \
    COST_INSTANCE(kernel, 4)   \
    COST_INSTANCE(kernel, 5)   \
    COST_INSTANCE(kernel, 6)   \
    COST_INSTANCE(kernel, 7)   \
    COST_INSTANCE(kernel, 8)   \
    COST_INSTANCE(kernel, 19)  \
    COST_INSTANCE(kernel, 20)  \
    COST_INSTANCE(kernel, 21)
COST_INSTANCES(cost_keys)
COST_INSTANCES(cost_values)
COST_INSTANCE(cost_weights, 1)
COST_INSTANCE(cost_weights, 2)

}  // namespace tq
