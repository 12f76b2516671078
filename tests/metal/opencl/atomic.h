// Atomic operations in device and threadgroup memory. OpenCL has types of its own by the same names.
#pragma once

#define atomic_uint metal_atomic_uint
#define atomic_int metal_atomic_int
#define memory_order_relaxed metal_memory_order_relaxed

namespace metal {

enum memory_order_of_metal { memory_order_relaxed };
template <class T>
struct atomic {
    T value;
};
using atomic_uint = atomic<uint>;
using atomic_int = atomic<int>;

#define MSL_FETCH(space, name) \
    template <class T>         \
    T name(space atomic<T>* object, msl::same_as<T> operand, memory_order_of_metal order);
#define MSL_MEMORY(space)                                                                                      \
    template <class T>                                                                                         \
    T atomic_load_explicit(const space atomic<T>* object, memory_order_of_metal order);                        \
    template <class T>                                                                                         \
    void atomic_store_explicit(space atomic<T>* object, msl::same_as<T> operand, memory_order_of_metal order); \
    MSL_FETCH(space, atomic_exchange_explicit)                                                                 \
    MSL_FETCH(space, atomic_fetch_add_explicit)                                                                \
    MSL_FETCH(space, atomic_fetch_sub_explicit)                                                                \
    MSL_FETCH(space, atomic_fetch_min_explicit)                                                                \
    MSL_FETCH(space, atomic_fetch_max_explicit)                                                                \
    MSL_FETCH(space, atomic_fetch_and_explicit)                                                                \
    MSL_FETCH(space, atomic_fetch_or_explicit)                                                                 \
    MSL_FETCH(space, atomic_fetch_xor_explicit)
MSL_MEMORY(__global)
MSL_MEMORY(__local)
#undef MSL_MEMORY
#undef MSL_FETCH

}  // namespace metal
