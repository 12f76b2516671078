// A view of a packed tensor, taken apart into the rows that it covers, so that just these can be decoded.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include <ggml.h>

namespace tq::plugin {

// The bytes that a view covers, as nominal strides and offsets say, are records of some whole rows of the root: one
// record for each index in the dims whose stride is a whole number of rows. In memory records follow each other.
struct DenseView {
    // Why the view can't be decoded, "" if it can: it goes beyond its root, or a stride divides a value.
    static std::string problem(const ggml_tensor* view);

    // view: one without a problem.
    explicit DenseView(const ggml_tensor* view);

    int64_t n_rows() const { return n_records * rows_a_record; }
    size_t bytes() const { return static_cast<size_t>(n_rows()) * row_bytes; }
    // The row of the root, numbered over all streams, that decoded row i is.
    int64_t source_row(int64_t i) const;

    size_t row_bytes;  // bytes of a row of the root
    int64_t rows_a_record;
    int64_t n_records = 1;
    size_t offset;             // bytes from the first decoded row to the view's first value
    size_t nb[GGML_MAX_DIMS];  // strides of the view on the decoded rows

  private:
    // A dim whose stride is whole rows, the smallest stride first.
    struct RowDim {
        int64_t n = 1, stride = 0;  // counted in rows
    };
    int64_t first_row;
    std::array<RowDim, GGML_MAX_DIMS> dims;
};

}  // namespace tq::plugin
