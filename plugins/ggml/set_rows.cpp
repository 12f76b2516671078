#include "set_rows.h"

#include <cstring>
#include <vector>

#include "turboquant/base/half.h"

namespace tq::plugin {
namespace {

int64_t row_index(const ggml_tensor* indices, int64_t i) {
    const char* p = static_cast<const char*>(indices->data) + i * indices->nb[0];
    if (indices->type == GGML_TYPE_I64) {
        int64_t index;
        std::memcpy(&index, p, sizeof index);
        return index;
    }
    int32_t index;
    std::memcpy(&index, p, sizeof index);
    return index;
}

const float* float_row(const ggml_tensor* rows, int64_t i, std::vector<float>& scratch) {
    const char* p = static_cast<const char*>(rows->data) + i * rows->nb[1];
    if (rows->type == GGML_TYPE_F32) return reinterpret_cast<const float*>(p);
    scratch.resize(rows->ne[0]);
    for (int64_t d = 0; d < rows->ne[0]; ++d) {
        uint16_t half;
        std::memcpy(&half, p + 2 * d, 2);
        scratch[d] = half_to_float(half);
    }
    return scratch.data();
}

}  // namespace

// Cells of one block share bytes, so a (block, slice) always belongs to one thread.
void SetRowsTask::run(int thread, int n_threads) {
    std::vector<float> scratch;
    const int n_slices = codec_.n_slices();
    for (int64_t i = 0; i < rows_->ne[1]; ++i) {
        const int64_t index = row_index(indices_, i);
        if (index < 0 || index >= kv_.n_rows()) {
            bad_data_ = true;
            continue;
        }
        for (int slice = 0; slice < n_slices; ++slice) {
            if ((kv_.block_of_row(index) * n_slices + slice) % n_threads == thread) {
                kv_.encode_slice(float_row(rows_, i, scratch), index, slice);
            }
        }
    }
}

}  // namespace tq::plugin
