// Mathematical, relational and integer functions. Results of the transcendental ones are the host's: Apple's differ in
// the last bits.
#pragma once

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define MAXFLOAT __FLT_MAX__
#define FLT_MAX __FLT_MAX__
#define FLT_MIN __FLT_MIN__
#define FLT_EPSILON __FLT_EPSILON__
#define MAXHALF (static_cast<half>(65504.0f))
#define HALF_MAX MAXHALF
#define INT_MAX __INT_MAX__
#define INT_MIN (-__INT_MAX__ - 1)
#define UINT_MAX (__INT_MAX__ * 2u + 1u)
#define M_PI_F 3.14159274101257324219f
#define M_LOG2E_F 1.44269502162933349609f
#define M_LN2_F 0.69314718246459960938f
#define M_SQRT1_2_F 0.70710676908493041992f
#define M_SQRT2_F 1.41421353816986083984f

namespace msl {

template <class T>
struct same {
    using type = T;
};
template <class T>  // so that one argument alone says the type, as with max(x, 0.0f) of overloaded functions
using same_as = typename same<T>::type;
template <class T>
using unsigned_of = __make_unsigned(T);

}  // namespace msl

namespace metal {

#define MSL_UNARY(name, builtin) \
    template <class T>           \
    constexpr T name(T x) {      \
        return builtin(x);       \
    }
MSL_UNARY(abs, __builtin_elementwise_abs)
MSL_UNARY(fabs, __builtin_elementwise_abs)
MSL_UNARY(ceil, __builtin_elementwise_ceil)
MSL_UNARY(floor, __builtin_elementwise_floor)
MSL_UNARY(rint, __builtin_elementwise_rint)
MSL_UNARY(round, __builtin_elementwise_round)
MSL_UNARY(trunc, __builtin_elementwise_trunc)
MSL_UNARY(sqrt, __builtin_elementwise_sqrt)
MSL_UNARY(exp, __builtin_elementwise_exp)
MSL_UNARY(exp2, __builtin_elementwise_exp2)
MSL_UNARY(log, __builtin_elementwise_log)
MSL_UNARY(log2, __builtin_elementwise_log2)
MSL_UNARY(log10, __builtin_elementwise_log10)
MSL_UNARY(sin, __builtin_elementwise_sin)
MSL_UNARY(cos, __builtin_elementwise_cos)
#undef MSL_UNARY

template <class T>
constexpr T rsqrt(T x) {
    return T(1) / sqrt(x);
}
template <class T>
constexpr T fract(T x) {
    return x - floor(x);
}
template <class T>
constexpr T fma(T a, msl::same_as<T> b, msl::same_as<T> c) {
    return __builtin_elementwise_fma(a, b, c);
}
template <class T>
constexpr T pow(T x, msl::same_as<T> y) {
    return __builtin_elementwise_pow(x, y);
}
template <class T>
constexpr T copysign(T x, msl::same_as<T> y) {
    return __builtin_elementwise_copysign(x, y);
}
template <class T>
constexpr T min(T a, T b) {
    return __builtin_elementwise_min(a, b);
}
template <class T>
constexpr T max(T a, T b) {
    return __builtin_elementwise_max(a, b);
}
template <class T>
constexpr T fmin(T a, T b) {
    return min(a, b);
}
template <class T>
constexpr T fmax(T a, T b) {
    return max(a, b);
}
template <class T>
constexpr T max3(T a, T b, T c) {
    return max(max(a, b), c);
}
template <class T>
constexpr T min3(T a, T b, T c) {
    return min(min(a, b), c);
}
template <class T>
constexpr T clamp(T x, msl::same_as<T> low, msl::same_as<T> high) {
    return min(max(x, low), high);
}
template <class T>
constexpr T saturate(T x) {
    return clamp(x, T(0), T(1));
}
template <class T>
constexpr T mix(T a, msl::same_as<T> b, msl::same_as<T> t) {
    return a + (b - a) * t;
}
template <class T>
constexpr T sign(T x) {
    return x > 0 ? T(1) : x < 0 ? T(-1) : T(x == 0 ? x : T(0));
}
inline float ldexp(float x, int k) {
    return __builtin_ldexpf(x, k);
}

template <class T>
constexpr bool isnan(T x) {
    return x != x;
}
inline bool isinf(float x) {
    return __builtin_isinf(x);
}
inline bool isfinite(float x) {
    return __builtin_isfinite(x);
}
template <class T>
constexpr bool signbit(T x) {
    return __builtin_signbit(static_cast<float>(x));
}

// Vectors' comparisons are vectors of 0 and -1 here.
template <class C>
constexpr bool any(C condition) {
    if constexpr (msl::vector_traits<C>::size == 1) {
        return condition;
    } else {
        for (int i = 0; i < msl::vector_traits<C>::size; ++i)
            if (condition[i]) return true;
        return false;
    }
}
template <class C>
constexpr bool all(C condition) {
    if constexpr (msl::vector_traits<C>::size == 1) {
        return condition;
    } else {
        for (int i = 0; i < msl::vector_traits<C>::size; ++i)
            if (!condition[i]) return false;
        return true;
    }
}
template <class T, class C>
constexpr T select(T no, msl::same_as<T> yes, C condition) {
    if constexpr (msl::vector_traits<T>::size == 1) {
        return condition ? yes : no;
    } else {
        T result = no;
        for (int i = 0; i < msl::vector_traits<T>::size; ++i)
            if (condition[i]) result[i] = yes[i];
        return result;
    }
}
template <class V>
constexpr typename msl::vector_traits<V>::element dot(V a, msl::same_as<V> b) {
    typename msl::vector_traits<V>::element sum = a[0] * b[0];
    for (int i = 1; i < msl::vector_traits<V>::size; ++i) sum += a[i] * b[i];
    return sum;
}

template <class T>
constexpr T popcount(T x) {
    return static_cast<T>(__builtin_popcountg(static_cast<msl::unsigned_of<T>>(x)));
}
template <class T>
constexpr T clz(T x) {
    return static_cast<T>(__builtin_clzg(static_cast<msl::unsigned_of<T>>(x), static_cast<int>(8 * sizeof(T))));
}
template <class T>
constexpr T ctz(T x) {
    return static_cast<T>(__builtin_ctzg(static_cast<msl::unsigned_of<T>>(x), static_cast<int>(8 * sizeof(T))));
}
constexpr uint extract_bits(uint x, uint offset, uint bits) {
    return bits == 0 ? 0 : (x >> offset) & (0xffffffffu >> (32 - bits));
}
constexpr int extract_bits(int x, uint offset, uint bits) {
    return bits == 0 ? 0 : static_cast<int>(static_cast<uint>(x) << (32 - bits - offset)) >> (32 - bits);
}
constexpr uint insert_bits(uint base, uint insert, uint offset, uint bits) {
    const uint mask = bits == 0 ? 0 : (0xffffffffu >> (32 - bits)) << offset;
    return (base & ~mask) | ((insert << offset) & mask);
}
constexpr uint reverse_bits(uint x) {
    return __builtin_bitreverse32(x);
}
constexpr uint rotate(uint x, uint by) {
    return __builtin_rotateleft32(x, by);
}
constexpr uint mulhi(uint a, uint b) {
    return static_cast<uint>((static_cast<ulong>(a) * b) >> 32);
}
constexpr int mulhi(int a, int b) {
    return static_cast<int>((static_cast<long>(a) * b) >> 32);
}

namespace precise {
using metal::cos;
using metal::exp;
using metal::exp2;
using metal::log;
using metal::log2;
using metal::sin;
using metal::sqrt;
}  // namespace precise
namespace fast = precise;

}  // namespace metal
