// A snapshot holds what a rewritten graph depends on, to recognize a graph that is still the same. llama.cpp computes
// one graph token after token, but it also builds new graphs in the memory of old ones: that addresses are equal proves
// nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <ggml.h>

namespace tq::plugin {

// It holds the address, op and sources of every node, which say what is packed and what is replaced, and all that there
// is of nodes that may be replaced and of their operands. KvTensor::generation() watches the packed tensors themselves.
//
// The tensors have left the CPU's caches since the last token, and this reads them one after another, a few lines each:
// most of the time is theirs, and the CPU backend reads the same lines next.
class GraphSnapshot {
  public:
    void take(ggml_cgraph* graph);
    bool matches(ggml_cgraph* graph) const;

  private:
    // The members of a tensor up to its name. A host's tensors may be longer; they begin the same.
    using TensorBytes = std::array<std::byte, offsetof(ggml_tensor, name)>;
    struct Operand {
        const ggml_tensor* tensor;
        TensorBytes bytes;
    };

    int n_nodes_ = 0;
    std::vector<uintptr_t> links_;   // each node: itself, op, view_src, then its sources up to the first null, with it
    std::vector<Operand> operands_;  // a node before its sources: they are there if it is the same
};

}  // namespace tq::plugin
