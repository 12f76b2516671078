// What the shim's functions give, for comparison with plain loops. One threadgroup; lane i has values[i].
#include <metal_stdlib>
using namespace metal;

constant int kResults = 24;

kernel void simd_operations(device const int* values [[buffer(0)]], device int* results [[buffer(1)]],
                            constant uint& by [[buffer(2)]], uint i [[thread_index_in_threadgroup]]) {
    const int x = values[i];
    device int* out = results + i * kResults;
    out[0] = simd_sum(x);
    out[1] = simd_max(x);
    out[2] = simd_min(x);
    out[3] = simd_and(x);
    out[4] = simd_or(x);
    out[5] = simd_xor(x);
    out[6] = simd_product(x % 3 == 0 ? -1 : 1);
    out[7] = simd_shuffle(x, ushort(by));
    out[8] = simd_shuffle_xor(x, ushort(by));
    out[9] = simd_shuffle_rotate_down(x, ushort(by));
    out[10] = simd_shuffle_rotate_up(x, ushort(by));
    out[11] = simd_broadcast(x, ushort(by));
    out[12] = simd_broadcast_first(x);
    out[13] = simd_prefix_inclusive_sum(x);
    out[14] = simd_prefix_exclusive_sum(x);
    out[15] = int(uint(ulong(simd_vote::vote_t(simd_ballot(x > 0)))));
    out[16] = simd_all(x > 0);
    out[17] = simd_any(x > 0);
    out[18] = simd_shuffle_down(x, ushort(by));  // of lanes that exist
    out[19] = simd_shuffle_up(x, ushort(by));
    out[20] = quad_shuffle_xor(x, 1);
    const int4 four = simd_shuffle_xor(int4(x, x + 1, x + 2, x + 3), ushort(by));
    out[21] = four.x + 4 * four.y + 16 * four.z + 64 * four.w;
    out[22] = int(simd_sum(half(x)));
    out[23] = simd_is_first();
}

// d = a b + c of 8x8 matrices, of which b is stored by columns.
template <typename T>
kernel void multiply(device const T* a [[buffer(0)]], device const T* b [[buffer(1)]], device const float* c [[buffer(2)]],
                     device float* d [[buffer(3)]], device float* elements [[buffer(4)]], uint lane [[thread_index_in_simdgroup]]) {
    simdgroup_matrix<T, 8, 8> left, right;
    simdgroup_float8x8 sum;
    simdgroup_load(left, a + 1, 9);
    simdgroup_load(right, b, 8, ulong2(0, 1), true);
    simdgroup_load(sum, c);
    simdgroup_multiply_accumulate(sum, left, right, sum);
    simdgroup_store(sum, d);
    elements[2 * lane] = sum.thread_elements()[0];
    elements[2 * lane + 1] = sum.thread_elements()[1];
}
template [[host_name("multiply_float")]] [[kernel]] decltype(multiply<float>) multiply<float>;
template [[host_name("multiply_half")]] [[kernel]] decltype(multiply<half>) multiply<half>;

kernel void diagonal(device float* d [[buffer(0)]]) {
    const simdgroup_float8x8 identity(1.0f);
    simdgroup_float8x8 two = make_filled_simdgroup_matrix<float, 8, 8>(2.0f), product;
    simdgroup_multiply(product, two, identity);
    simdgroup_store(product, d);
}

// Every half and bfloat there and back; halves that floats become.
kernel void conversions(device const ushort* bits [[buffer(0)]], device const float* floats [[buffer(1)]],
                        device float* of_half [[buffer(2)]], device float* of_bfloat [[buffer(3)]],
                        device ushort* half_bits [[buffer(4)]], device ushort* bfloat_bits [[buffer(5)]],
                        uint at [[thread_position_in_grid]]) {
    of_half[at] = float(as_type<half>(bits[at]));
    of_bfloat[at] = float(as_type<bfloat>(bits[at]));
    half_bits[at] = as_type<ushort>(half(floats[at]));
    bfloat_bits[at] = as_type<ushort>(bfloat(floats[at]));
}

// Sums and products of halves are rounded one by one.
kernel void half_arithmetic(device const half* a [[buffer(0)]], device const half* b [[buffer(1)]],
                            device const half* c [[buffer(2)]], device half* d [[buffer(3)]], uint at [[thread_position_in_grid]]) {
    d[at] = a[at] * b[at] + c[at];
}

// Products and sums may become one operation, unless Metal is told not to.
kernel void contraction(device const float* x [[buffer(0)]], device float* out [[buffer(1)]]) {
    out[0] = x[0] * x[1] + x[2];
    {
#pragma METAL fp contract(off)
        out[1] = x[0] * x[1] + x[2];
    }
    out[2] = fma(x[0], x[1], x[2]);
}

kernel void denormals(device const float* x [[buffer(0)]], device float* out [[buffer(1)]]) {
    out[0] = x[0] * 0.5f;
    out[1] = simd_sum(x[0]) * 0.25f;
}

kernel void vectors(device float4* out [[buffer(0)]], device uint4* words [[buffer(1)]]) {
    const float2 xy = float2(1, 2);
    out[0] = float4(xy, 3.0f, 4.0f).wzyx;
    out[1] = float4(0.5h);
    out[2] = float4(int4(-1, 2, -3, 4));
    out[3] = select(out[0], float4(9), out[0] > float4(2.5f));
    out[4] = clamp(float4(-2, -0.5f, 0.5f, 2), float4(-1), float4(1));
    out[5] = fma(float4(2), float4(3), float4(1, 2, 3, 4));
    out[6] = float4(dot(xy, xy), any(xy > float2(1.5f)), all(xy > float2(1.5f)), as_type<float>(0x40490fdbu));
    out[7] = float4(rint(2.5f), rint(-3.5f), exp2(-3.0f), max(NAN, 1.0f));
    words[0] = uint4(popcount(0xf0f0u), clz(1u), ctz(8u), ctz(0u));
    words[1] = uint4(extract_bits(0xabcdu, 4, 8), insert_bits(0xffffu, 0u, 4, 8), reverse_bits(1u), mulhi(0x80000000u, 6u));
    words[2] = as_type<uint4>(float4(1, -1, 0, INFINITY));
    words[3] = uint4(as_type<uchar4>(0x04030201u));
}

kernel void inputs(device uint* out [[buffer(0)]], ushort3 grid [[thread_position_in_grid]], uint3 local [[thread_position_in_threadgroup]],
                   uint2 group [[threadgroup_position_in_grid]], uint3 threads [[threads_per_threadgroup]],
                   uint3 groups [[threadgroups_per_grid]], uint3 all [[threads_per_grid]],
                   ushort index [[thread_index_in_threadgroup]], uint simd [[simdgroup_index_in_threadgroup]],
                   uint lane [[thread_index_in_simdgroup]], uint simds [[simdgroups_per_threadgroup]],
                   uint width [[threads_per_simdgroup]]) {
    device uint* to = out + 20 * (grid.x + all.x * (grid.y + all.y * grid.z));
    to[0] = grid.x;
    to[1] = grid.y;
    to[2] = grid.z;
    to[3] = local.x;
    to[4] = local.y;
    to[5] = local.z;
    to[6] = group.x;
    to[7] = group.y;
    to[8] = threads.x;
    to[9] = threads.y;
    to[10] = threads.z;
    to[11] = groups.x;
    to[12] = groups.y;
    to[13] = groups.z;
    to[14] = index;
    to[15] = simd;
    to[16] = lane;
    to[17] = simds;
    to[18] = width;
    to[19] = all.x * all.y * all.z;
}

constant int number [[function_constant(3)]];
constant half ratio [[function_constant(4)]];
constant bool has_more [[function_constant(5)]];

kernel void function_constants(device float* out [[buffer(0)]], device const float* more [[buffer(1), function_constant(has_more)]]) {
    out[0] = is_function_constant_defined(number) ? float(number) : -1.0f;
    out[1] = is_function_constant_defined(ratio) ? float(ratio) : -1.0f;
    out[2] = has_more ? more[0] : -1.0f;
}

[[kernel, max_total_threads_per_threadgroup(64)]] void limited(device uint* out [[buffer(0)]], uint at [[thread_position_in_grid]]) {
    out[at] = at;
}

kernel void much_threadgroup_memory(device uint* out [[buffer(0)]], threadgroup uint* given [[threadgroup(0)]], uint at [[thread_position_in_grid]]) {
    threadgroup uint own[4096];
    own[at] = at;
    given[at] = at;
    out[at] = own[at] + given[at];
}
