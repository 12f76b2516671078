// What shaders' code and the shim call: each finds the threadgroup that is running.
#include <cstring>

#include "lanes.h"

using tq::lanes::Access;

namespace {

tq::lanes::Threadgroup& running() {
    return *tq::lanes::Threadgroup::running();
}

void access(const void* address, size_t bytes, bool writes, const void* code) {
    running().access(reinterpret_cast<uintptr_t>(address), bytes, Access{!writes, writes, false}, code);
}

}  // namespace

extern "C" {

msl_exchange_slots* msl_exchange(const void* value, size_t bytes, const msl_place* place) {
    return running().exchange(value, bytes, *place);
}
void msl_barrier(msl_sync scope, unsigned memory, const msl_place* place) {
    running().barrier(scope, memory, *place);
}
int msl_lane() {
    return running().lane_in_simd_group();
}
void* msl_threadgroup_variable(const char* name, const void* id, size_t bytes) {
    return running().threadgroup_memory(name, id, bytes);
}
void msl_atomic_access(const void* address, size_t bytes, bool reads, bool writes) {
    running().access(reinterpret_cast<uintptr_t>(address), bytes, Access{reads, writes, true}, nullptr);
}

// -fsanitize=kernel-address, outlined: before a load or store of n bytes (N: of any number).
#define TQ_CODE __builtin_return_address(0)
#define TQ_ACCESS(n)                                   \
    void msl_load##n##_noabort(const void* address) {  \
        access(address, n, false, TQ_CODE);            \
    }                                                  \
    void msl_store##n##_noabort(const void* address) { \
        access(address, n, true, TQ_CODE);             \
    }
TQ_ACCESS(1)
TQ_ACCESS(2)
TQ_ACCESS(4)
TQ_ACCESS(8)
TQ_ACCESS(16)
#undef TQ_ACCESS
void msl_loadN_noabort(const void* address, size_t bytes) {
    access(address, bytes, false, TQ_CODE);
}
void msl_storeN_noabort(const void* address, size_t bytes) {
    access(address, bytes, true, TQ_CODE);
}
void* msl_memcpy(void* to, const void* from, size_t bytes) {
    access(from, bytes, false, TQ_CODE);
    access(to, bytes, true, TQ_CODE);
    return std::memcpy(to, from, bytes);
}
void* msl_memmove(void* to, const void* from, size_t bytes) {
    access(from, bytes, false, TQ_CODE);
    access(to, bytes, true, TQ_CODE);
    return std::memmove(to, from, bytes);
}
void* msl_memset(void* to, int value, size_t bytes) {
    access(to, bytes, true, TQ_CODE);
    return std::memset(to, value, bytes);
}

#undef TQ_CODE

// -fsanitize=array-bounds and so on: where a check of an operation has failed. What is known of it starts with its
// place.
struct UndefinedPlace {
    const char* file;
    uint32_t line, column;
};
#define TQ_UNDEFINED(handler, what, stops)                          \
    void __ubsan_handle_##handler(const UndefinedPlace* place) {    \
        running().undefined(what, place->file, place->line, stops); \
    }
TQ_UNDEFINED(out_of_bounds, "an index beyond an array", true)
TQ_UNDEFINED(shift_out_of_bounds, "a shift by as many bits as there are, or more", false)
TQ_UNDEFINED(divrem_overflow, "a division by zero", true)
TQ_UNDEFINED(add_overflow, "overflow of a signed addition", false)
TQ_UNDEFINED(sub_overflow, "overflow of a signed subtraction", false)
TQ_UNDEFINED(mul_overflow, "overflow of a signed multiplication", false)
TQ_UNDEFINED(negate_overflow, "overflow of a signed negation", false)
TQ_UNDEFINED(float_cast_overflow, "a float that the integer type cannot hold", false)
#undef TQ_UNDEFINED

}  // extern "C"
