// 8x8 matrices whose 64 elements lie in a SIMD group's lanes, two in each, where MLX says that they lie on Apple's GPUs
// (steel/gemm/mma.h, BaseMMAFrag<T, 8, 8>::get_coord).
#pragma once

namespace msl {

struct matrix_place {
    int row, column;  // of the first element; the second one is in the next column
};
__attribute__((always_inline)) inline matrix_place place_of(int lane) {
    const int quad = lane / 4;
    return {(quad & 4) + (lane / 2) % 4, (quad & 2) * 2 + (lane % 2) * 2};
}
__attribute__((always_inline)) inline int lane_of(int row, int column) {
    return (row & 4) * 4 + (column & 4) * 2 + (row & 3) * 2 + (column & 2) / 2;
}

}  // namespace msl

namespace metal {

template <class T, int rows, int columns>
class simdgroup_matrix {
    static_assert(rows == 8 && columns == 8, "8x8");

  public:
    simdgroup_matrix() = default;
    explicit simdgroup_matrix(T value) {  // on the diagonal
        const msl::matrix_place at = msl::place_of(msl_lane());
        elements_[0] = at.row == at.column ? value : T(0);
        elements_[1] = at.row == at.column + 1 ? value : T(0);
    }
    vec<T, 2>& thread_elements() { return elements_; }
    const vec<T, 2>& thread_elements() const { return elements_; }

  private:
    vec<T, 2> elements_;
};
using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;

template <class T, int rows, int columns>
simdgroup_matrix<T, rows, columns> make_filled_simdgroup_matrix(T value) {
    simdgroup_matrix<T, rows, columns> result;
    result.thread_elements() = vec<T, 2>(value);
    return result;
}

template <class T, class P>
__attribute__((always_inline)) inline void simdgroup_load(simdgroup_matrix<T, 8, 8>& d, const P* source,
                                                          ulong elements_per_row = 8, ulong2 origin = ulong2(0ul),
                                                          bool transpose = false) {
    const msl::matrix_place at = msl::place_of(msl_lane());
    for (int i = 0; i < 2; ++i) {
        const ulong row = static_cast<ulong>(transpose ? at.column + i : at.row);
        const ulong column = static_cast<ulong>(transpose ? at.row : at.column + i);
        d.thread_elements()[i] = source[(origin.y + row) * elements_per_row + origin.x + column];
    }
}
template <class T, class P>
__attribute__((always_inline)) inline void simdgroup_store(simdgroup_matrix<T, 8, 8> a, P* destination,
                                                           ulong elements_per_row = 8, ulong2 origin = ulong2(0ul),
                                                           bool transpose = false) {
    const msl::matrix_place at = msl::place_of(msl_lane());
    for (int i = 0; i < 2; ++i) {
        const ulong row = static_cast<ulong>(transpose ? at.column + i : at.row);
        const ulong column = static_cast<ulong>(transpose ? at.row : at.column + i);
        destination[(origin.y + row) * elements_per_row + origin.x + column] = a.thread_elements()[i];
    }
}

// D = A B + C. Products of halves are exact in float; the order of the sum is not specified, and depends on the seed.
template <class D, class A, class B, class C>
MSL_LANES void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                             simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c, MSL_WHERE) {
    MSL_PLACE("simdgroup_multiply_accumulate");
    struct Pairs {
        vec<A, 2> a;
        vec<B, 2> b;
    };
    const auto s = msl::exchange(Pairs{a.thread_elements(), b.thread_elements()}, place);
    const msl::matrix_place at = msl::place_of(msl_lane());
    for (int i = 0; i < 2; ++i) {
        float sum = static_cast<float>(c.thread_elements()[i]);
        for (int j = 0; j < 8; ++j) {
            const int k = (j + static_cast<int>(s->rotation)) % 8;
            const float left = static_cast<float>(msl::value_from<Pairs>(s, msl::lane_of(at.row, k)).a[k & 1]);
            const float right = static_cast<float>(msl::value_from<Pairs>(s, msl::lane_of(k, at.column + i)).b[i]);
            sum = __builtin_fmaf(left, right, sum);
        }
        d.thread_elements()[i] = static_cast<D>(sum);
    }
}
template <class D, class A, class B>
__attribute__((always_inline)) inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                                              simdgroup_matrix<B, 8, 8> b, MSL_WHERE) {
    simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>(D(0)), file, line);
}

}  // namespace metal
