// Turns a ggml graph that touches packed KV tensors into one that the CPU backend can run: SET_ROWS and FLASH_ATTN_EXT
// become custom nodes, anything else on a packed tensor goes through dense scratch memory, all other nodes stay.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include <ggml.h>

#include "graph_snapshot.h"
#include "rewriting.h"

namespace tq::plugin {

class GraphRewriter {
  public:
    explicit GraphRewriter(const Config& config) : config_(config) {}

    // The rewritten graph, to be run before the next call; `graph` itself if nothing in it touches a packed tensor;
    // null after logging why it can't be computed. A graph that is as it was at one of the last calls is not rewritten
    // again, and nothing is allocated.
    ggml_cgraph* rewrite(ggml_cgraph* graph, int n_threads);

    // After the graph has run: false, once logged, if a node met bad data.
    bool succeeded();

  private:
    // A rewriting and what it was made for.
    struct Slot {
        std::unique_ptr<Rewriting> rewriting;
        bool reusable = false;
        GraphSnapshot snapshot;
        int n_threads = 0;
        uint64_t generation = 0;  // KvTensor::generation() when it was made
        uint64_t moves = 0;       // Workspace::moves() when it was made
        uint64_t used = 0;        // the last call that took it
    };
    Slot* find(ggml_cgraph* graph, int n_threads);
    // Null after logging why the graph can't be computed.
    Slot* make(ggml_cgraph* graph, int n_threads);

    Config config_;
    Workspace workspace_;
    std::array<Slot, 8> slots_;  // more than one: a token's graph may come in pieces
    uint64_t calls_ = 0;
};

}  // namespace tq::plugin
