// SET_ROWS into a packed tensor.
#pragma once

#include <ggml.h>

#include <atomic>

#include "kv_tensor.h"
#include "task.h"

namespace tq::plugin {

class SetRowsTask : public Task {
public:
    // node: SET_ROWS with f32 or f16 rows and i32 or i64 indices, numbered over all streams.
    // bad_data is set if an index is out of range; that row is not stored.
    SetRowsTask(KvTensor& kv, const ggml_tensor* node, std::atomic<bool>& bad_data)
        : kv_(kv), codec_(kv.codec()), rows_(node->src[0]), indices_(node->src[1]), bad_data_(bad_data) {}

    void run(int thread, int n_threads) override;

private:
    KvTensor& kv_;
    const RowCodec& codec_;   // made here, before threads share it
    const ggml_tensor* rows_;
    const ggml_tensor* indices_;
    std::atomic<bool>& bad_data_;
};

}  // namespace tq::plugin
