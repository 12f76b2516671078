// How a kernel is called: translate.py writes a table of its parameters, and these templates see their types.
#pragma once

namespace msl {

template <class P>
struct argument;
template <class T>
struct argument<T*> {
    static T* get(const void* memory) { return static_cast<T*>(const_cast<void*>(memory)); }
};
template <class T>
struct argument<T&> {
    static T& get(const void* memory) { return *static_cast<T*>(const_cast<void*>(memory)); }
};
template <class T>
struct argument {  // an input, of one, two or three numbers
    __attribute__((no_sanitize("kernel-address"))) static T get(const void* memory) {
        const auto* input = static_cast<const uint*>(memory);
        if constexpr (vector_traits<T>::size == 1) {
            return static_cast<T>(input[0]);
        } else {
            T result;
            for (int i = 0; i < vector_traits<T>::size; ++i)
                result[i] = static_cast<typename vector_traits<T>::element>(input[i]);
            return result;
        }
    }
};

template <int... i>
struct indices {};
template <int n, int... i>
struct indices_to : indices_to<n - 1, n - 1, i...> {};
template <int... i>
struct indices_to<0, i...> {
    using type = indices<i...>;
};

template <class... P, int... i>
__attribute__((no_sanitize("kernel-address"))) void call(void (*function)(P...), const void* const* arguments,
                                                         indices<i...>) {
    function(argument<P>::get(arguments[i])...);
}
template <class... P>
constexpr int parameter_count(void (*)(P...)) {
    return static_cast<int>(sizeof...(P));
}
template <class F, F function>
__attribute__((no_sanitize("kernel-address"))) void call_kernel(const void* const* arguments) {
    static_assert(parameter_count(function) <= kMslParameters, "fewer parameters");
    call(function, arguments, typename indices_to<parameter_count(function)>::type{});
}

// `threadgroup T name[n];` in a kernel.
template <class T>
__attribute__((no_sanitize("kernel-address"))) T& threadgroup_variable(const char* name, const void* id) {
    return *static_cast<T*>(msl_threadgroup_variable(name, id, sizeof(T)));
}

}  // namespace msl
