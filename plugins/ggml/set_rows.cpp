#include "set_rows.h"

#include <algorithm>
#include <cstring>

#include "nominal.h"

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

}  // namespace

// Makes room here, since run() allocates nothing.
void ExactRowsTask::begin(KvTensor& kv, const ggml_tensor* set_rows, uint16_t* staging) {
    const int64_t n_rows = set_rows->src[0]->ne[1];
    begun_.push_back({&kv, set_rows, staging});
    cells_.reserve(n_rows);
    kv.exact()->reserve(n_rows);
}

void ExactRowsTask::run(int thread, int) {
    if (thread != 0) return;
    for (KvTensor* kv : committed_) kv->exact()->commit();
    for (const Begun& b : begun_) {
        cells_.clear();
        for (int64_t i = 0; i < b.set_rows->src[0]->ne[1]; ++i) cells_.push_back(row_index(b.set_rows->src[1], i));
        b.kv->exact()->abandon();  // rows of an aborted graph are lost: others have had the staging memory since
        b.kv->exact()->begin(cells_, b.staging);
    }
}

SetRowsTask::SetRowsTask(KvTensor& kv, const ggml_tensor* node, int n_threads, std::atomic<bool>& bad_data)
    : kv_(kv),
      codec_(kv.codec()),
      rows_(node->src[0]),
      indices_(node->src[1]),
      floats_(rows_->type == GGML_TYPE_F32 && !kv.exact() ? 0 : rows_->ne[0] * n_threads),
      bad_data_(bad_data) {}

// Row i as it is stored: with exact rows, as a saved state would hold it.
const float* SetRowsTask::float_row(int64_t i, int thread) {
    const char* p = static_cast<const char*>(rows_->data) + i * rows_->nb[1];
    if (floats_.empty()) return reinterpret_cast<const float*>(p);
    float* row = floats_.data() + rows_->ne[0] * thread;
    if (rows_->type == GGML_TYPE_F32)
        std::memcpy(row, p, sizeof(float) * rows_->ne[0]);
    else
        from_nominal(GGML_TYPE_F16, reinterpret_cast<const uint8_t*>(p), rows_->ne[0], row);
    kv_.round_to_state(row);
    return row;
}

// The cells of row i's block that rows behind it go to, a bit each: what they held does not have to follow a new
// center.
uint64_t SetRowsTask::stored_next(int64_t i) const {
    const int64_t block = kv_.block_of_row(row_index(indices_, i));
    uint64_t cells = 0;
    for (int64_t next = i + 1; next < std::min(rows_->ne[1], i + kBlockCells); ++next) {
        const int64_t index = row_index(indices_, next);
        if (index < 0 || index >= kv_.n_rows() || kv_.block_of_row(index) != block) continue;
        cells |= uint64_t{1} << index % kv_.n_cells() % kBlockCells;
    }
    return cells;
}

// Cells of one block share bytes, so a (block, slice) always belongs to one thread; of centered keys, whose blocks
// depend on those before, a slice.
void SetRowsTask::run(int thread, int n_threads) {
    const int n_slices = codec_.n_slices();
    ExactRows* exact = kv_.exact();
    for (int64_t i = 0; i < rows_->ne[1]; ++i) {
        const int64_t index = row_index(indices_, i);
        if (index < 0 || index >= kv_.n_rows()) {
            bad_data_ = true;
            continue;
        }
        const int64_t block = kv_.format().centered() ? 0 : kv_.block_of_row(index);
        const float* row = nullptr;
        const auto row_once = [&] { return row ? row : row = float_row(i, thread); };
        if (exact && i % n_threads == thread) exact->store(i, row_once());
        const bool may_move_center = kv_.format().centered() && index % kv_.n_cells() % kBlockCells <= kUncenteredCells;
        const uint64_t rewritten = may_move_center ? stored_next(i) : 0;
        for (int slice = 0; slice < n_slices; ++slice) {
            if ((block * n_slices + slice) % n_threads == thread) kv_.encode_slice(row_once(), index, slice, rewritten);
        }
    }
}

}  // namespace tq::plugin
