// Exact rows of a call as attention takes them: an ExactRows of K and one of V over an index that is made for the call.
// The arrays of a graph have no memory of what was written when; their cells alone say which rows a query takes, as
// cells here are always in the order of the sequence.
#pragma once

#include <cstdint>
#include <vector>

#include "attend.h"
#include "turboquant/cache/exact_rows.h"

namespace tq::mlx_plugin {

// One side's rows, as floats (of the tokens) and halves (of what was before).
struct ExactSource {
    const uint16_t* before;  // (n_stream, n_slots, n_embd)
    const char* tokens;      // (n_stream, n_head_kv, n_tokens, head_dim)
    FloatType type;
};

class ExactStreams {
  public:
    // The sources are read here and not needed later.
    ExactStreams(const LayerCodec& codec, const std::vector<StreamCells>& streams, int64_t n_tokens, bool has_mask,
                 const ExactSource& keys, const ExactSource& values);

    const ExactRows* keys() const { return &keys_.rows; }
    const ExactRows* values() const { return &values_.rows; }

  private:
    struct Copy {
        std::vector<uint16_t> slots, staging;
        ExactRows rows;

        Copy(ExactIndex& index, int64_t n_embd, int64_t n_staged);
    };
    void fill(Copy& copy, const LayerCodec& codec, Side side, int64_t n_tokens, const ExactSource& source) const;

    int64_t n_cells_;  // cells that each stream may have
    ExactIndex index_;
    std::vector<int64_t> before_;  // cells with rows before the tokens, numbered over all streams
    std::vector<int64_t> cells_;   // of the tokens
    Copy keys_, values_;
};

}  // namespace tq::mlx_plugin
