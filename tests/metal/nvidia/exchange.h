// How lanes of a SIMD group get at each other's values: by shuffles of a warp. All lanes take part in each.
#pragma once

#define MSL_LANES __attribute__((always_inline, convergent))
#define MSL_WHERE const char *file = "", int line = 0
#define MSL_PLACE(operation) const msl_place place = {nullptr, file, line, operation}

extern "C" inline int msl_lane() {
    return __nvvm_read_ptx_sreg_tid_x() % kMslSimdWidth;
}
// Both barriers order threadgroup and device memory, whatever was asked for.
extern "C" inline void msl_barrier(msl_sync scope, unsigned, const msl_place*) {
    if (scope == MSL_THREADGROUP_BARRIER) {
        __syncthreads();
    } else {
        __nvvm_bar_warp_sync(~0u);
    }
}

namespace msl {

// The lane's own value, and what msl_exchange_slots tells of the group.
template <class T>
struct own_value {
    T value;
    uint active = ~0u, rotation = 0;

    const own_value* operator->() const { return this; }
};

template <class T>
MSL_LANES inline own_value<T> exchange(T value, const msl_place&) {
    return {value};
}
template <class T>
MSL_LANES inline T value_from(const own_value<T>& own, int lane) {
    constexpr int n = (sizeof(T) + 3) / 4;
    int words[n] = {};
    __builtin_memcpy(words, &own.value, sizeof(T));
    for (int i = 0; i < n; ++i) words[i] = __nvvm_shfl_sync_idx_i32(~0u, words[i], lane, kMslSimdWidth - 1);
    T value;
    __builtin_memcpy(&value, words, sizeof(T));
    return value;
}
template <class T>
MSL_LANES inline T value_of(const own_value<T>& own, int lane) {
    return value_from<T>(own, lane);
}
template <class T, class Combine>
MSL_LANES inline T reduce(const own_value<T>& own, Combine combine) {
    T result = value_of<T>(own, 0);
    for (int lane = 1; lane < kMslSimdWidth; ++lane) result = combine(result, value_of<T>(own, lane));
    return result;
}

}  // namespace msl
