// Turns a ggml graph that touches packed KV tensors into one that the CPU backend can run: SET_ROWS and FLASH_ATTN_EXT
// become custom nodes, anything else on a packed tensor goes through dense scratch memory, all other nodes stay.
#pragma once

#include <ggml.h>

#include <memory>
#include <vector>

#include "buffer.h"

namespace tq::plugin {

// Why a node that touches a packed tensor can't be computed at all, "" if it can.
std::string rejection(const ggml_tensor* node);

// Whether our device takes the node: it touches a packed tensor and there is a way to compute it (or to say why not).
bool touches_kv(const ggml_tensor* node);

// Learns head_dim from FLASH_ATTN_EXT nodes, which are seen before anything is stored.
void learn_head_dim(const ggml_tensor* node);

class GraphRewriter {
public:
    explicit GraphRewriter(const Config& config);
    ~GraphRewriter();

    // The rewritten graph, valid until the next call; `graph` itself if nothing in it touches a packed tensor;
    // null after logging why it can't be computed.
    ggml_cgraph* rewrite(ggml_cgraph* graph, int n_threads);

    // After the graph has run: false, once logged, if a node met bad data.
    bool succeeded();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace tq::plugin
