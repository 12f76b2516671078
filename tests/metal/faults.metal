// Kernels that are right, and wrong in one way each where `planted`. Threadgroups have 64 lanes, buffers 64 values for each.
#include <metal_stdlib>
using namespace metal;

constant bool planted [[function_constant(0)]];

struct Pair {
    float4 first, second;
};

// Hands values on to the neighbour in threadgroup memory.
kernel void threadgroup_race(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                             uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    threadgroup float shared[64];
    shared[i] = in[at];
    if (!planted) threadgroup_barrier(mem_flags::mem_threadgroup);
    out[at] = shared[(i + 1) % 64];
}

// The same with the wrong kind of barrier.
kernel void barrier_of_other_memory(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                    uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    threadgroup float shared[64];
    shared[i] = in[at];
    threadgroup_barrier(planted ? mem_flags::mem_device : mem_flags::mem_threadgroup);
    out[at] = shared[(i + 1) % 64];
}

// Readers come first, and a writer after them.
kernel void write_after_read(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                             uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    threadgroup float shared[64];
    shared[i] = in[at];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float next = shared[(i + 1) % 64];
    if (!planted) threadgroup_barrier(mem_flags::mem_threadgroup);
    shared[i] = next;
    out[at] = shared[i];
}

// A barrier of the SIMD group is enough within it alone.
kernel void simdgroup_barrier_is_too_little(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                            uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    threadgroup float shared[64];
    shared[i] = in[at];
    simdgroup_barrier(mem_flags::mem_threadgroup);
    const uint other = planted ? (i + 1) % 64 : i / 32 * 32 + (i + 1) % 32;
    out[at] = shared[other];
}

// A SIMD operation orders no memory.
kernel void simd_operation_is_no_barrier(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                         uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    threadgroup float shared[64];
    shared[i] = in[at];
    const float sum = simd_sum(in[at]);
    if (!planted) simdgroup_barrier(mem_flags::mem_threadgroup);
    out[at] = shared[i ^ 1] + sum;
}

// Threadgroups write to a place of their own, or all to the first one's.
kernel void device_race(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                        uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    out[planted ? i : at] = in[at];
}

// One threadgroup reads what another one writes, with a barrier that does not order them.
kernel void device_read_of_other_threadgroup(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                             uint group [[threadgroup_position_in_grid]],
                                             uint at [[thread_position_in_grid]]) {
    out[at] = in[at];
    threadgroup_barrier(mem_flags::mem_device);
    if (planted && group == 1) out[at] = out[at - 64] + 1;
}

// Lanes count together.
kernel void atomic_counts(device const float* in [[buffer(0)]], device atomic_uint* counts [[buffer(1)]],
                          uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    threadgroup atomic_uint shared;
    if (i == 0) atomic_store_explicit(&shared, 0u, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (in[at] > 3.0f) atomic_fetch_add_explicit(&shared, 1u, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (planted) reinterpret_cast<device uint*>(counts)[0] = 0;
    if (i == 0) atomic_fetch_add_explicit(counts, atomic_load_explicit(&shared, memory_order_relaxed), memory_order_relaxed);
}

kernel void out_of_bounds_read(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                               uint at [[thread_position_in_grid]], uint count [[threads_per_grid]]) {
    out[at] = in[planted || at + 1 < count ? at + 1 : 0];
}

kernel void out_of_bounds_write(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                uint at [[thread_position_in_grid]], uint count [[threads_per_grid]]) {
    out[planted || at + 1 < count ? at + 1 : 0] = in[at];
}

// A structure that is copied whole, of which the last 4 bytes are not there.
kernel void out_of_bounds_copy(device const Pair* in [[buffer(0)]], device Pair* out [[buffer(1)]],
                               uint at [[thread_position_in_grid]]) {
    if (at < 8) out[at] = in[planted ? at + 9 : at];
}

kernel void out_of_bounds_threadgroup(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                      threadgroup float* shared [[threadgroup(0)]],
                                      uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    shared[planted ? i + 1 : i] = in[at];
    out[at] = in[at];
}

kernel void read_only_write(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                    uint at [[thread_position_in_grid]]) {
    device float* to = planted ? const_cast<device float*>(in) : out;
    to[at] = in[at];
}

// Only the first SIMD group's lanes write.
kernel void uninitialized_threadgroup(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                      uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    threadgroup float shared[64];
    if (!planted || i < 32) shared[i] = in[at];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    out[at] = shared[i];
}

kernel void uninitialized_device(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                 uint at [[thread_position_in_grid]]) {
    if (!planted) out[at] = 1;
    out[at] += in[at];
}

kernel void index_beyond_array(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                               uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    float local[64];
    for (int k = 0; k < 64; ++k) local[k] = in[at];
    out[at] = local[planted ? i + 1 : i];
}

kernel void shift_by_too_many(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                              uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    out[at] = in[at] + float(1u << (planted ? i : i % 32));
}

kernel void signed_overflow(device const float* in [[buffer(0)]], device float* out [[buffer(1)]], uint at [[thread_position_in_grid]]) {
    out[at] = float(int(in[at] * 1.0e9f) + (planted ? 1000000000 : 1));
}

kernel void divergent_barrier(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                              uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    if (!planted || i < 32) threadgroup_barrier(mem_flags::mem_threadgroup);
    out[at] = in[at];
}

// Two barriers, each of which half of the lanes come to.
kernel void two_barriers(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                         uint i [[thread_index_in_threadgroup]], uint at [[thread_position_in_grid]]) {
    if (planted && i < 32) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
    } else {
        threadgroup_barrier(mem_flags::mem_device);
    }
    out[at] = in[at];
}

kernel void divergent_simd_operation(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                     uint lane [[thread_index_in_simdgroup]], uint at [[thread_position_in_grid]]) {
    float x = in[at];
    if (!planted || lane < 16) x = simd_sum(x);
    out[at] = x;
}

// The same operation at two places of the text.
kernel void two_simd_operations(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                                uint lane [[thread_index_in_simdgroup]], uint at [[thread_position_in_grid]]) {
    float x = in[at];
    if (planted && lane < 16) {
        x = simd_sum(x);
    } else {
        x = simd_sum(x);
    }
    out[at] = x;
}

kernel void early_return(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                         uint lane [[thread_index_in_simdgroup]], uint at [[thread_position_in_grid]]) {
    out[at] = in[at];
    if (planted && lane == 5) return;
    out[at] = simd_max(out[at]);
}
