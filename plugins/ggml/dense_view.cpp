#include "dense_view.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "kv_tensor.h"

namespace tq::plugin {
namespace {

bool steps_rows(const ggml_tensor* view, int dim, size_t row_bytes) {
    return view->ne[dim] > 1 && view->nb[dim] % row_bytes == 0;
}

// Bytes from the view's first value to the end of its last one, in the dims for which `takes` holds.
template <class Takes>
size_t extent(const ggml_tensor* view, Takes takes) {
    size_t bytes = ggml_type_size(view->type);
    for (int d = 0; d < GGML_MAX_DIMS; ++d) {
        if (takes(d)) bytes += static_cast<size_t>(view->ne[d] - 1) * view->nb[d];
    }
    return bytes;
}

size_t row_bytes_of(const ggml_tensor* view) {
    return root_of(view)->nb[1];
}
size_t offset_of(const ggml_tensor* view) {
    return view->view_src ? view->view_offs : 0;
}

}  // namespace

std::string DenseView::problem(const ggml_tensor* view) {
    const ggml_tensor* root = root_of(view);
    if (view->type != root->type)
        return fmt::format("a view of {} takes its {} values as {}", root->name, ggml_type_name(root->type),
                           ggml_type_name(view->type));
    const size_t element = ggml_type_size(root->type);
    bool whole = offset_of(view) % element == 0;
    for (size_t stride : view->nb) whole = whole && stride % element == 0;
    if (!whole) return fmt::format("a view of {} has strides that are not whole values", root->name);
    if (ggml_nelements(view) == 0 || offset_of(view) + extent(view, [](int) { return true; }) <= ggml_nbytes(root))
        return "";
    return fmt::format("a view of {} goes beyond its {} bytes", root->name, ggml_nbytes(root));
}

DenseView::DenseView(const ggml_tensor* view) : row_bytes(row_bytes_of(view)) {
    offset = offset_of(view) % row_bytes;
    first_row = static_cast<int64_t>(offset_of(view) / row_bytes);
    const size_t record = offset + extent(view, [&](int d) { return !steps_rows(view, d, row_bytes); });
    rows_a_record = static_cast<int64_t>((record + row_bytes - 1) / row_bytes);
    std::vector<int> order;
    for (int d = 0; d < GGML_MAX_DIMS; ++d) {
        nb[d] = view->nb[d];
        if (steps_rows(view, d, row_bytes)) order.push_back(d);
    }
    // They are sorted by their strides, so that what was ascending or contiguous still is.
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return view->nb[a] < view->nb[b]; });
    for (size_t i = 0; i < order.size(); ++i) {
        const int d = order[i];
        dims[i] = {view->ne[d], static_cast<int64_t>(view->nb[d] / row_bytes)};
        nb[d] = static_cast<size_t>(n_records * rows_a_record) * row_bytes;
        n_records *= view->ne[d];
    }
    if (ggml_nelements(view) == 0) n_records = 0;
}

int64_t DenseView::source_row(int64_t i) const {
    int64_t row = first_row + i % rows_a_record;
    i /= rows_a_record;
    for (const RowDim& dim : dims) {
        row += i % dim.n * dim.stride;
        i /= dim.n;
    }
    return row;
}

}  // namespace tq::plugin
