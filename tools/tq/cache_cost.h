// This says what a KV cache costs, byte for byte: llama.cpp is asked what it would allocate, and the plugin says how
// large that is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "eval/host.h"

namespace tq::tool {

struct CacheCost {
    size_t bytes = 0;           // bytes of the whole cache, fixed_bytes among them
    double bits_per_value = 0;  // bits of the values whose type -ctk and -ctv choose: without fixed_bytes
};

// A context of one sequence as llama.cpp's tools make it: sliding windows are not kept whole.
struct CacheShape {
    int64_t n_cells = 0;     // tokens of context, as llama.cpp rounds them
    int64_t n_values = 0;    // keys and values whose type -ctk and -ctv choose, in all layers
    size_t fixed_bytes = 0;  // bytes beside them: recurrent states and whatever else has its own type
};

// Answers for one model and context.
class CacheCosts {
  public:
    // options: as of Host; nothing is allocated. n_ctx 0: the model's training context. Errors: as of Host, and
    // kUnsupported if this llama.cpp can't be asked.
    static Result<CacheCosts> create(HostOptions options, int64_t n_ctx, int n_batch, int n_ubatch);

    // Error: kUnsupported with llama.cpp's words if it refuses this cache for this model.
    Result<CacheCost> cost(const CacheChoice& cache);

    const CacheShape& shape() const { return shape_; }
    const Host& host() const { return host_; }

  private:
    CacheCosts(Host host, int n_ctx, int n_batch, int n_ubatch)
        : host_(std::move(host)), n_ctx_(n_ctx), n_batch_(n_batch), n_ubatch_(n_ubatch) {}
    Result<size_t> bytes(const CacheChoice& cache);
    Status measure_shape();

    Host host_;
    int n_ctx_, n_batch_, n_ubatch_;
    CacheShape shape_;
};

}  // namespace tq::tool
