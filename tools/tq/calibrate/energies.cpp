#include "calibrate/energies.h"

#include <algorithm>

#include "turboquant/codec/layout.h"

namespace tq::tool {
namespace {

void add_squares(const float* row, size_t n, std::vector<double>& sums) {
    sums.resize(n);
    for (size_t i = 0; i < n; ++i) sums[i] += double{row[i]} * row[i];
}

void add_rows(const std::vector<float>& rows, size_t width, std::vector<double>& sums) {
    for (size_t at = width; at + width <= rows.size(); at += width) add_squares(rows.data() + at, width, sums);
}

std::vector<float> mean_of_block(const float* rows, size_t width, size_t first, size_t end) {
    std::vector<float> mean(width);
    for (size_t row = first; row < end; ++row) {
        for (size_t i = 0; i < width; ++i) mean[i] += rows[row * width + i] / static_cast<float>(end - first);
    }
    return mean;
}

void add_centered(const std::vector<float>& rows, size_t width, std::vector<double>& sums) {
    const size_t n = rows.size() / width;
    std::vector<float> difference(width);
    for (size_t begin = kBlockCells; begin < n; begin += kBlockCells) {
        const size_t before = begin - kBlockCells;
        const std::vector<float> center = mean_of_block(rows.data(), width, before == 0 ? 1 : before, begin);
        for (size_t row = begin; row < std::min<size_t>(n, begin + kBlockCells); ++row) {
            for (size_t i = 0; i < width; ++i) difference[i] = rows[row * width + i] - center[i];
            add_squares(difference.data(), width, sums);
        }
    }
}

}  // namespace

void LayerEnergies::add(const CapturedLayer& layer) {
    head_dim_k = layer.head_dim_k;
    head_dim_v = layer.head_dim_v;
    n_head = layer.n_head;
    const auto width_k = static_cast<size_t>(layer.n_embd_k), d = static_cast<size_t>(layer.head_dim_k);
    add_rows(layer.keys, width_k, keys);
    add_rows(layer.values, static_cast<size_t>(layer.n_embd_v), values);
    add_centered(layer.keys, width_k, centered_keys);
    queries.resize(width_k);
    const auto heads = static_cast<size_t>(n_head);
    const size_t group = heads / (width_k / d);
    for (size_t row = heads; (row + 1) * d <= layer.queries.size(); ++row) {
        const float* q = layer.queries.data() + row * d;
        double* sums = queries.data() + row % heads / group * d;
        for (size_t i = 0; i < d; ++i) sums[i] += double{q[i]} * q[i];
    }
}

}  // namespace tq::tool
