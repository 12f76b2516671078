// Scalar and vector types and their constructors, for C++ and for C++ for OpenCL.
#pragma once

constexpr half operator""h(long double value) {
    return static_cast<half>(value);
}
constexpr half operator""h(unsigned long long value) {
    return static_cast<half>(value);
}
constexpr half operator"" H(long double value) {
    return static_cast<half>(value);
}

// A type to store: arithmetic happens in float.
struct bfloat {
    ushort bits;

    bfloat() = default;
    constexpr bfloat(float value) : bits(round_to_nearest_even(__builtin_bit_cast(uint, value))) {}
    constexpr operator float() const { return __builtin_bit_cast(float, static_cast<uint>(bits) << 16); }
#if defined(__OPENCL_CPP_VERSION__)  // there, an object in constant memory is another kind of object
    constexpr operator float() const __constant {
        return __builtin_bit_cast(float, static_cast<uint>(bits) << 16);
    }
#endif

  private:
    static constexpr ushort round_to_nearest_even(uint word) {
        return (word & 0x7fffffffu) > 0x7f800000u ? static_cast<ushort>((word >> 16) | 64u)
                                                  : static_cast<ushort>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
    }
};

namespace metal {

template <class T, int n>
using vec = T __attribute__((ext_vector_type(n)));

}  // namespace metal

#define MSL_VECTORS(type)                \
    using type##2 = metal::vec<type, 2>; \
    using type##3 = metal::vec<type, 3>; \
    using type##4 = metal::vec<type, 4>; \
    struct packed_##type##2 {            \
        type x, y;                       \
        operator type##2() const {       \
            return type##2 {x, y};       \
        }                                \
    };                                   \
    struct packed_##type##3 {            \
        type x, y, z;                    \
        operator type##3() const {       \
            return type##3 {x, y, z};    \
        }                                \
    };                                   \
    struct packed_##type##4 {            \
        type x, y, z, w;                 \
        operator type##4() const {       \
            return type##4 {x, y, z, w}; \
        }                                \
    };
MSL_VECTORS(char)
MSL_VECTORS(uchar)
MSL_VECTORS(short)
MSL_VECTORS(ushort)
MSL_VECTORS(int)
MSL_VECTORS(uint)
MSL_VECTORS(long)
MSL_VECTORS(ulong)
MSL_VECTORS(half)
MSL_VECTORS(float)
#undef MSL_VECTORS

namespace msl {

template <class V>
struct vector_traits {
    static constexpr int size = 1;
    using element = V;
};
template <class T, int n>
struct vector_traits<T __attribute__((ext_vector_type(n)))> {
    static constexpr int size = n;
    using element = T;
};

template <class T, class V, class A>
constexpr void append(V& v, int& at, A a) {
    if constexpr (vector_traits<A>::size == 1) {
        v[at++] = static_cast<T>(a);
    } else {
        for (int i = 0; i < vector_traits<A>::size; ++i) v[at++] = static_cast<T>(a[i]);
    }
}

// float4(x), float4(xy, z, w) and so on. Of one scalar all elements are made.
template <class V>
constexpr V make() {
    return V(0);
}
template <class V, class A>
constexpr V make(A a) {
    if constexpr (vector_traits<A>::size == 1) {
        return V(static_cast<typename vector_traits<V>::element>(a));
    } else {
        static_assert(vector_traits<A>::size == vector_traits<V>::size, "a vector of another size");
        return __builtin_convertvector(a, V);
    }
}
template <class V, class A, class B, class... More>
constexpr V make(A a, B b, More... more) {
    static_assert(vector_traits<A>::size + vector_traits<B>::size + (0 + ... + vector_traits<More>::size) ==
                      vector_traits<V>::size,
                  "as many elements as the vector has");
    V v(0);
    int at = 0;
    using T = typename vector_traits<V>::element;
    append<T>(v, at, a);
    append<T>(v, at, b);
    (append<T>(v, at, more), ...);
    return v;
}

}  // namespace msl

#define char2(...) msl::make<char2>(__VA_ARGS__)
#define char3(...) msl::make<char3>(__VA_ARGS__)
#define char4(...) msl::make<char4>(__VA_ARGS__)
#define uchar2(...) msl::make<uchar2>(__VA_ARGS__)
#define uchar3(...) msl::make<uchar3>(__VA_ARGS__)
#define uchar4(...) msl::make<uchar4>(__VA_ARGS__)
#define short2(...) msl::make<short2>(__VA_ARGS__)
#define short3(...) msl::make<short3>(__VA_ARGS__)
#define short4(...) msl::make<short4>(__VA_ARGS__)
#define ushort2(...) msl::make<ushort2>(__VA_ARGS__)
#define ushort3(...) msl::make<ushort3>(__VA_ARGS__)
#define ushort4(...) msl::make<ushort4>(__VA_ARGS__)
#define int2(...) msl::make<int2>(__VA_ARGS__)
#define int3(...) msl::make<int3>(__VA_ARGS__)
#define int4(...) msl::make<int4>(__VA_ARGS__)
#define uint2(...) msl::make<uint2>(__VA_ARGS__)
#define uint3(...) msl::make<uint3>(__VA_ARGS__)
#define uint4(...) msl::make<uint4>(__VA_ARGS__)
#define long2(...) msl::make<long2>(__VA_ARGS__)
#define long3(...) msl::make<long3>(__VA_ARGS__)
#define long4(...) msl::make<long4>(__VA_ARGS__)
#define ulong2(...) msl::make<ulong2>(__VA_ARGS__)
#define ulong3(...) msl::make<ulong3>(__VA_ARGS__)
#define ulong4(...) msl::make<ulong4>(__VA_ARGS__)
#define half2(...) msl::make<half2>(__VA_ARGS__)
#define half3(...) msl::make<half3>(__VA_ARGS__)
#define half4(...) msl::make<half4>(__VA_ARGS__)
#define float2(...) msl::make<float2>(__VA_ARGS__)
#define float3(...) msl::make<float3>(__VA_ARGS__)
#define float4(...) msl::make<float4>(__VA_ARGS__)

template <class To, class From>
constexpr To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From), "as_type keeps the size");
    return __builtin_bit_cast(To, from);
}
