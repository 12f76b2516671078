// What a GGUF file's metadata say about the model's KV cache. Files are not trusted: every value is checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "turboquant/base/status.h"

namespace tq::tool {

// One layer's cache rows. Without keys and values the layer has no KV cache.
struct KvLayer {
    int64_t n_embd_k = 0;  // values a key row: head_count_kv * key_length
    int64_t n_embd_v = 0;
};

struct GgufModel {
    std::string architecture;
    std::string name;            // general.name, may be empty
    int64_t context_length = 0;  // of the training; 0: not in the file
    int64_t sliding_window = 0;  // 0: none
    int64_t key_length = 0;
    int64_t value_length = 0;
    std::vector<KvLayer> layers;     // <arch>.block_count of them
    std::vector<std::string> notes;  // what the numbers leave out

    int64_t n_layer_kv() const;
};

// Reads the metadata only. Error: kInvalidArgument; the message starts with the file's name.
Result<GgufModel> read_gguf_model(const std::string& file);

}  // namespace tq::tool
