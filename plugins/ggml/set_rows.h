// SET_ROWS into a packed tensor, and what keeps its exact rows in step.
#pragma once

#include <atomic>
#include <vector>

#include <ggml.h>

#include "kv_tensor.h"
#include "task.h"

namespace tq::plugin {

// One thread has to note this down, before the rows of this layer are stored, of exact rows: those of the layer before
// move to their slots (they share the staging memory), those of this one are announced.
class ExactRowsTask : public Task {
  public:
    void commit(KvTensor& kv) { committed_.push_back(&kv); }
    void begin(KvTensor& kv, const ggml_tensor* set_rows, uint16_t* staging);
    bool empty() const { return committed_.empty() && begun_.empty(); }

    void run(int thread, int n_threads) override;

  private:
    struct Begun {
        KvTensor* kv;
        const ggml_tensor* set_rows;
        uint16_t* staging;
    };
    std::vector<KvTensor*> committed_;
    std::vector<Begun> begun_;
    std::vector<int64_t> cells_;  // cells that a node writes, numbered over all streams
};

class SetRowsTask : public Task {
  public:
    // node: SET_ROWS with f32 or f16 rows and i32 or i64 indices, numbered over all streams.
    // bad_data is set if an index is out of range; that row is not stored.
    SetRowsTask(KvTensor& kv, const ggml_tensor* node, int n_threads, std::atomic<bool>& bad_data);

    void run(int thread, int n_threads) override;

  private:
    const float* float_row(int64_t i, int thread);
    uint64_t stored_next(int64_t i) const;

    KvTensor& kv_;
    const RowCodec& codec_;  // made here, before threads share it
    const ggml_tensor* rows_;
    const ggml_tensor* indices_;
    std::vector<float> floats_;  // f16 rows as floats: one for each thread, made here, since run() allocates nothing
    std::atomic<bool>& bad_data_;
};

}  // namespace tq::plugin
