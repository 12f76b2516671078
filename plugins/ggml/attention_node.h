// FLASH_ATTN_EXT on packed tensors: what the node means, and its phases as custom nodes.
#pragma once

#include <string>

#include <ggml.h>

#include "kv_tensor.h"
#include "task.h"
#include "turboquant/attention/plan.h"

namespace tq::plugin {

// Parameters of the op: 0 scale, 1 max_bias, 2 softcap.
float attention_param(const ggml_tensor* node, int index);

struct FusedAttention {
    AttentionPlan plan;
    AttentionInputs inputs;
};

// Error: kUnsupported with the reason why this node needs the dense path.
Result<FusedAttention> fuse_attention(const ggml_tensor* node, Isa isa, int n_threads);

// One phase of a plan.
class AttentionTask : public Task {
  public:
    AttentionTask(const FusedAttention& attention, AttentionPhase phase, void* workspace, ItemDealer& items)
        : attention_(attention), phase_(phase), workspace_(workspace), items_(items) {}

    void run(int thread, int) override {
        items_.deal(attention_.plan.n_items(phase_),
                    [&](int64_t item) { attention_.plan.run(phase_, item, thread, attention_.inputs, workspace_); });
    }

  private:
    FusedAttention attention_;
    AttentionPhase phase_;
    void* workspace_;
    ItemDealer& items_;
};

}  // namespace tq::plugin
