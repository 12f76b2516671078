// 8x8 matrices: Metal loads from all memory but constant, and stores to device and threadgroup memory.
#pragma once

namespace metal {

template <class T, int rows, int columns>
class simdgroup_matrix {
    static_assert(rows == 8 && columns == 8, "8x8");

  public:
    simdgroup_matrix() = default;
    explicit simdgroup_matrix(T value);
    __private vec<T, 2>& thread_elements() __private;
    const __private vec<T, 2>& thread_elements() const __private;

  private:
    vec<T, 2> elements_;
};
using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;

template <class T, int rows, int columns>
simdgroup_matrix<T, rows, columns> make_filled_simdgroup_matrix(T value);

#define MSL_MEMORY(space)                                                                                          \
    template <class T>                                                                                             \
    void simdgroup_load(__private simdgroup_matrix<T, 8, 8>& d, const space T* source, ulong elements_per_row = 8, \
                        ulong2 origin = ulong2(0ul), bool transpose = false);                                      \
    template <class T>                                                                                             \
    void simdgroup_store(simdgroup_matrix<T, 8, 8> a, space T* destination, ulong elements_per_row = 8,            \
                         ulong2 origin = ulong2(0ul), bool transpose = false);
MSL_MEMORY(__global)
MSL_MEMORY(__local)
#undef MSL_MEMORY

template <class D, class A, class B, class C>
void simdgroup_multiply_accumulate(__private simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                   simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c);
template <class D, class A, class B>
void simdgroup_multiply(__private simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                        simdgroup_matrix<B, 8, 8> b);

}  // namespace metal
