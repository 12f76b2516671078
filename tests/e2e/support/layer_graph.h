// A layer's graph as llama.cpp computes it token after token: rows stored, attention, something of ggml's own before
// and after. Tests change it in place, and build graphs in the memory of earlier ones.
#pragma once

#include <cstddef>
#include <vector>

#include "attention_graph.h"

namespace tq::e2e {

// Memory of a graph's tensors and of their data.
class GraphMemory {
  public:
    explicit GraphMemory(ggml_backend_t backend);

    // Makes room for the next graph, at the same addresses; what was made before is gone.
    ggml_context* restart();
    // Gives every tensor that has no data its place.
    void allocate();

  private:
    std::vector<std::byte> tensors_;
    ggml_backend_buffer_ptr data_;
    ggml_context_ptr context_;
};

// Stores n_tokens random rows of K and V in cells 0, 1, ... of the first stream, and attends to n_kv cells of it; the
// output is scaled. No mask hides anything but other_mask: it has holes.
struct LayerGraph {
    LayerGraph(GraphMemory& memory, Layer& layer, const Shape& shape, ggml_type row_type = GGML_TYPE_F32);

    void set_indices(const std::vector<int64_t>& cells);
    Floats output() const;

    ggml_cgraph* graph = nullptr;
    ggml_tensor *k_rows, *v_rows, *indices, *q, *mask;
    // A test may put these in the place of the above, or of K and V.
    ggml_tensor *other_rows, *other_q, *other_mask, *sinks, *plain_k, *plain_v, *other_attention;
    ggml_tensor *k, *v;  // [head_dim, n_kv, n_head_kv], views of the cache
    ggml_tensor *store_k, *store_v, *attention, *out;
};

}  // namespace tq::e2e
