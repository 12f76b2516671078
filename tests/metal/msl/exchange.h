// How lanes of a SIMD group get at each other's values: through memory that they share (lanes/).
#pragma once

// Not duplicated by the compiler, and not looked at as a shader's code.
#define MSL_LANES __attribute__((noinline, convergent, noduplicate, no_sanitize("kernel-address")))
#define MSL_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define MSL_PLACE(operation) const msl_place place = {__builtin_return_address(0), file, line, operation}

namespace msl {

using slots = msl_exchange_slots;

template <class T>
__attribute__((always_inline)) inline slots* exchange(T value, const msl_place& place) {
    static_assert(sizeof(T) <= kMslSlotBytes, "a small value");
    return msl_exchange(&value, sizeof(T), &place);
}
template <class T>
__attribute__((always_inline)) inline T value_of(const slots* s, int lane) {
    T value;
    __builtin_memcpy(&value, s->values[lane], sizeof(T));
    return value;
}
// What a lane that takes no part gives is not defined: a value that is seldom right.
template <class T>
__attribute__((always_inline)) inline T value_from(const slots* s, int lane) {
    if (lane >= 0 && lane < kMslSimdWidth && (s->active >> lane & 1u)) return value_of<T>(s, lane);
    T value;
    __builtin_memset(&value, 0xff, sizeof(T));
    return value;
}
// Metal does not say in which order lanes are combined; here it depends on the seed.
template <class T, class Combine>
__attribute__((always_inline)) inline T reduce(slots* s, Combine combine) {
    T result;
    if (!s->has_result) {
        bool first = true;
        for (int i = 0; i < kMslSimdWidth; ++i) {
            const int lane = (i + static_cast<int>(s->rotation)) % kMslSimdWidth;
            if (!(s->active >> lane & 1u)) continue;
            result = first ? value_of<T>(s, lane) : combine(result, value_of<T>(s, lane));
            first = false;
        }
        __builtin_memcpy(s->result, &result, sizeof(T));
        s->has_result = true;
    }
    __builtin_memcpy(&result, s->result, sizeof(T));
    return result;
}

}  // namespace msl
