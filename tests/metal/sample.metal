// A kernel for the tests of the lanes themselves: each threadgroup sums a run of values with weights, and writes the
// sum and the largest weighted value.
#include <metal_stdlib>
using namespace metal;

struct SampleParams {
    uint values;     // in all
    uint per_group;  // values of a threadgroup
};

constant bool use_weights [[function_constant(0)]];
constant constexpr float kScale[2] = {1.0f, 0.5f};

template <typename T, int simd_groups>
[[kernel]] void weighted_sum(
    device const T* values [[buffer(0)]],
    device const float* weights [[buffer(1), function_constant(use_weights)]],
    device float* sums [[buffer(2)]],
    constant SampleParams& params [[buffer(3)]],
    threadgroup float* scratch [[threadgroup(0)]],
    uint group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd_group [[simdgroup_index_in_threadgroup]]) {
    threadgroup float largest[simd_groups];
    float sum = 0, top = -INFINITY;
    for (uint i = simd_group * 32 + lane; i < params.per_group; i += simd_groups * 32) {
        const uint at = group * params.per_group + i;
        if (at < params.values) {
            const float value = float(values[at]) * (use_weights ? weights[at] : 1.0f) * kScale[at & 1];
            sum += value;
            top = max(top, value);
        }
    }
    sum = simd_sum(sum);
    top = simd_max(top);
    if (lane == 0) {
        scratch[simd_group] = sum;
        largest[simd_group] = top;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (simd_group == 0 && lane == 0) {
        for (int i = 1; i < simd_groups; ++i) {
            sum += scratch[i];
            top = max(top, largest[i]);
        }
        sums[group * 2] = sum;
        sums[group * 2 + 1] = top;
    }
}

#define SAMPLE_INSTANCE(type, simd_groups) \
    template [[host_name("weighted_sum_" #type "_" #simd_groups)]] [[kernel]] decltype(weighted_sum<type, simd_groups>) weighted_sum<type, simd_groups>;
SAMPLE_INSTANCE(float, 4)
SAMPLE_INSTANCE(half, 2)
