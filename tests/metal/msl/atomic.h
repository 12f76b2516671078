// Atomic operations with relaxed order, the only one that Metal has below version 3.2.
#pragma once

namespace metal {

enum memory_order { memory_order_relaxed };

template <class T>
struct atomic {
    T value;
};
using atomic_uint = atomic<uint>;
using atomic_int = atomic<int>;

// A lane is never interrupted within such a call.
#define MSL_ATOMIC __attribute__((noinline, no_sanitize("kernel-address")))

template <class T>
MSL_ATOMIC T atomic_load_explicit(const atomic<T>* object, memory_order) {
    msl_atomic_access(object, sizeof(T), true, false);
    return object->value;
}
template <class T>
MSL_ATOMIC void atomic_store_explicit(atomic<T>* object, msl::same_as<T> value, memory_order) {
    msl_atomic_access(object, sizeof(T), false, true);
    object->value = value;
}
#define MSL_FETCH(name, expression)                                         \
    template <class T>                                                      \
    MSL_ATOMIC T name(atomic<T>* object, msl::same_as<T> b, memory_order) { \
        msl_atomic_access(object, sizeof(T), true, true);                   \
        const T a = object->value;                                          \
        object->value = expression;                                         \
        return a;                                                           \
    }
MSL_FETCH(atomic_exchange_explicit, b)
MSL_FETCH(atomic_fetch_add_explicit, a + b)
MSL_FETCH(atomic_fetch_sub_explicit, a - b)
MSL_FETCH(atomic_fetch_min_explicit, a < b ? a : b)
MSL_FETCH(atomic_fetch_max_explicit, a < b ? b : a)
MSL_FETCH(atomic_fetch_and_explicit, a& b)
MSL_FETCH(atomic_fetch_or_explicit, a | b)
MSL_FETCH(atomic_fetch_xor_explicit, a ^ b)
#undef MSL_FETCH
#undef MSL_ATOMIC

}  // namespace metal
