// Operations of SIMD groups, and barriers. Every lane of the group must come to the same call.
#pragma once

namespace metal {

enum class mem_flags : uint {
    mem_none = 0,
    mem_device = MSL_DEVICE_MEMORY,
    mem_threadgroup = MSL_THREADGROUP_MEMORY,
};
constexpr mem_flags operator|(mem_flags a, mem_flags b) {
    return static_cast<mem_flags>(static_cast<uint>(a) | static_cast<uint>(b));
}

MSL_LANES inline void threadgroup_barrier(mem_flags flags, MSL_WHERE) {
    MSL_PLACE("threadgroup_barrier");
    msl_barrier(MSL_THREADGROUP_BARRIER, static_cast<uint>(flags), &place);
}
MSL_LANES inline void simdgroup_barrier(mem_flags flags, MSL_WHERE) {
    MSL_PLACE("simdgroup_barrier");
    msl_barrier(MSL_SIMDGROUP_BARRIER, static_cast<uint>(flags), &place);
}

#define MSL_REDUCTION(name, expression)                                                                      \
    template <class T>                                                                                       \
    MSL_LANES T name(T x, MSL_WHERE) {                                                                       \
        MSL_PLACE(#name);                                                                                    \
        return msl::reduce<T>(                                                                               \
            msl::exchange(x, place), [](T a, T b) __attribute__((always_inline))->T { return expression; }); \
    }
MSL_REDUCTION(simd_sum, a + b)
MSL_REDUCTION(simd_product, a* b)
MSL_REDUCTION(simd_max, __builtin_elementwise_max(a, b))
MSL_REDUCTION(simd_min, __builtin_elementwise_min(a, b))
MSL_REDUCTION(simd_and, a& b)
MSL_REDUCTION(simd_or, a | b)
MSL_REDUCTION(simd_xor, a ^ b)
#undef MSL_REDUCTION

#define MSL_SHUFFLE(name, index)                  \
    template <class T>                            \
    MSL_LANES T name(T x, ushort by, MSL_WHERE) { \
        MSL_PLACE(#name);                         \
        const auto s = msl::exchange(x, place);   \
        const int lane = msl_lane();              \
        return msl::value_from<T>(s, index);      \
    }
MSL_SHUFFLE(simd_shuffle, (static_cast<void>(lane), by))
MSL_SHUFFLE(simd_broadcast, (static_cast<void>(lane), by))
MSL_SHUFFLE(simd_shuffle_xor, lane ^ by)
MSL_SHUFFLE(simd_shuffle_down, lane + by)
MSL_SHUFFLE(simd_shuffle_up, lane - by)
MSL_SHUFFLE(simd_shuffle_rotate_down, (lane + by) % kMslSimdWidth)
MSL_SHUFFLE(simd_shuffle_rotate_up, (lane + kMslSimdWidth - by % kMslSimdWidth) % kMslSimdWidth)
MSL_SHUFFLE(quad_shuffle, lane / 4 * 4 + by)
MSL_SHUFFLE(quad_broadcast, lane / 4 * 4 + by)
MSL_SHUFFLE(quad_shuffle_xor, lane ^ by)
#undef MSL_SHUFFLE

template <class T>
MSL_LANES T simd_broadcast_first(T x, MSL_WHERE) {
    MSL_PLACE("simd_broadcast_first");
    const auto s = msl::exchange(x, place);
    return msl::value_from<T>(s, __builtin_ctz(s->active));
}

#define MSL_PREFIX(name, start, from, expression)     \
    template <class T>                                \
    MSL_LANES T name(T x, MSL_WHERE) {                \
        MSL_PLACE(#name);                             \
        const auto s = msl::exchange(x, place);       \
        T a = T(start);                               \
        for (int i = 0; i < msl_lane() + from; ++i) { \
            const T b = msl::value_of<T>(s, i);       \
            if (s->active >> i & 1u) a = expression;  \
        }                                             \
        return a;                                     \
    }
MSL_PREFIX(simd_prefix_inclusive_sum, 0, 1, a + b)
MSL_PREFIX(simd_prefix_exclusive_sum, 0, 0, a + b)
MSL_PREFIX(simd_prefix_inclusive_product, 1, 1, a* b)
MSL_PREFIX(simd_prefix_exclusive_product, 1, 0, a* b)
#undef MSL_PREFIX

class simd_vote {
  public:
    using vote_t = ulong;
    explicit constexpr simd_vote(vote_t bits, vote_t active = 0xffffffffu) : bits_(bits), active_(active) {}
    explicit constexpr operator vote_t() const { return bits_; }
    constexpr bool all() const { return bits_ == active_; }
    constexpr bool any() const { return bits_ != 0; }

  private:
    vote_t bits_, active_;
};
MSL_LANES inline simd_vote simd_ballot(bool x, MSL_WHERE) {
    MSL_PLACE("simd_ballot");
    const auto s = msl::exchange(x, place);
    ulong bits = 0;
    for (int i = 0; i < kMslSimdWidth; ++i)
        if ((s->active >> i & 1u) && msl::value_of<bool>(s, i)) bits |= 1ul << i;
    return simd_vote(bits, s->active);
}
MSL_LANES inline bool simd_all(bool x, MSL_WHERE) {
    MSL_PLACE("simd_all");
    return msl::reduce<bool>(
        msl::exchange(x, place), [](bool a, bool b) __attribute__((always_inline)) { return a && b; });
}
MSL_LANES inline bool simd_any(bool x, MSL_WHERE) {
    MSL_PLACE("simd_any");
    return msl::reduce<bool>(
        msl::exchange(x, place), [](bool a, bool b) __attribute__((always_inline)) { return a || b; });
}
inline bool simd_is_first() {
    return msl_lane() == 0;
}

}  // namespace metal
