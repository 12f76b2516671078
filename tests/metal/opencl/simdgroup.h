// Operations of SIMD groups, and barriers.
#pragma once

namespace metal {

enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) {
    return static_cast<mem_flags>(static_cast<uint>(a) | static_cast<uint>(b));
}
void threadgroup_barrier(mem_flags flags);
void simdgroup_barrier(mem_flags flags);

#define MSL_OF_ONE(name) \
    template <class T>   \
    T name(T x);
MSL_OF_ONE(simd_sum)
MSL_OF_ONE(simd_product)
MSL_OF_ONE(simd_max)
MSL_OF_ONE(simd_min)
MSL_OF_ONE(simd_and)
MSL_OF_ONE(simd_or)
MSL_OF_ONE(simd_xor)
MSL_OF_ONE(simd_broadcast_first)
MSL_OF_ONE(simd_prefix_inclusive_sum)
MSL_OF_ONE(simd_prefix_exclusive_sum)
MSL_OF_ONE(simd_prefix_inclusive_product)
MSL_OF_ONE(simd_prefix_exclusive_product)
#undef MSL_OF_ONE

#define MSL_SHUFFLE(name) \
    template <class T>    \
    T name(T x, ushort by);
MSL_SHUFFLE(simd_shuffle)
MSL_SHUFFLE(simd_broadcast)
MSL_SHUFFLE(simd_shuffle_xor)
MSL_SHUFFLE(simd_shuffle_down)
MSL_SHUFFLE(simd_shuffle_up)
MSL_SHUFFLE(simd_shuffle_rotate_down)
MSL_SHUFFLE(simd_shuffle_rotate_up)
MSL_SHUFFLE(quad_shuffle)
MSL_SHUFFLE(quad_broadcast)
MSL_SHUFFLE(quad_shuffle_xor)
#undef MSL_SHUFFLE

class simd_vote {
  public:
    using vote_t = ulong;
    explicit simd_vote(vote_t bits);
    explicit operator vote_t() const;
    bool all() const;
    bool any() const;
};
simd_vote simd_ballot(bool x);
bool simd_all(bool x);
bool simd_any(bool x);
bool simd_is_first();

}  // namespace metal
