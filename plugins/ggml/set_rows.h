// SET_ROWS into a packed tensor.
#pragma once

#include <ggml.h>

#include <atomic>
#include <vector>

#include "kv_tensor.h"
#include "task.h"

namespace tq::plugin {

class SetRowsTask : public Task {
public:
    // node: SET_ROWS with f32 or f16 rows and i32 or i64 indices, numbered over all streams.
    // bad_data is set if an index is out of range; that row is not stored.
    SetRowsTask(KvTensor& kv, const ggml_tensor* node, int n_threads, std::atomic<bool>& bad_data);

    void run(int thread, int n_threads) override;

private:
    const float* float_row(int64_t i, int thread);

    KvTensor& kv_;
    const RowCodec& codec_;   // made here, before threads share it
    const ggml_tensor* rows_;
    const ggml_tensor* indices_;
    std::vector<float> floats_;   // of f16 rows: one for each thread, made here, since run() allocates nothing
    std::atomic<bool>& bad_data_;
};

}  // namespace tq::plugin
