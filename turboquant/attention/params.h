// Shapes and pointers of one attention call. Shapes are written as in ggml: the fastest dimension first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "turboquant/base/float_type.h"
#include "turboquant/base/inline.h"
#include "turboquant/cache/exact_rows.h"
#include "turboquant/cache/packed_tensor.h"

namespace tq {

// A plan is made for this.
struct AttentionShape {
    int head_dim_k = 0;
    int head_dim_v = 0;
    int n_head = 0;  // query heads, a multiple of n_head_kv
    int n_head_kv = 0;
    int64_t n_tokens = 0;  // query tokens a stream; with AttentionInputs::n_tokens_of_stream, at most so many
    int64_t n_kv = 0;      // cells attended to, [0, n_kv) of each stream; with n_kv_of_stream, at most so many
    int64_t n_stream = 1;
    float scale = 1;      // multiplies q.k
    float softcap = 0;    // > 0: logits become softcap * tanh(logits / softcap)
    float max_bias = 0;   // > 0: ALiBi, the mask is multiplied by the head's slope
    int n_threads = 1;    // threads that may call run() at the same time
    int64_t n_exact = 0;  // at most so many cells of a query are attended to as exact rows: ExactCells::n_per_query().
                          // Each token then has a mask of n_kv halves in the workspace, whether it came with one or not

    // The query tokens are the newest of their stream: of n tokens of a stream with L cells, token i sees cells
    // [0, L - n + i] (none if that is negative). It says what a mask would say, in the same bits, and costs no mask;
    // blocks that no token sees are not touched. With a mask, both hold.
    bool causal = false;
    // > 0: a token sees only the newest `window` of those cells, its own included. Needs `causal`. Time is in
    // proportion to the window then, not to the context.
    int64_t window = 0;
};

// A plan runs on this. Strides are in bytes, so that any tensor view fits; the elements of a row lie side by side.
// Nothing is copied but pointers: what they point to has to stay as it is from bind() to the end of run().
struct AttentionInputs {
    const void* q = nullptr;  // q_type (head_dim_k, n_tokens, n_head, n_stream), aligned as its elements
    FloatType q_type = FloatType::kF32;
    size_t q_token_stride = 0, q_head_stride = 0, q_stream_stride = 0;

    PackedTensor k, v;           // their codecs' head_dim must be the shape's
    int64_t k_first_stream = 0;  // stream 0 of the call is this one of the tensor
    int64_t v_first_stream = 0;

    // Ragged batches: (n_stream) each, null: all as long as the shape says. A stream of n_kv_of_stream cells, 0 to
    // n_kv, gives the bits of a plan of that n_kv, and what lies behind is not read: its blocks need no record. Without
    // cells its rows are what fully masked rows are. Of a stream of n_tokens_of_stream tokens, 0 to n_tokens, the rows
    // of q, mask, out and lse behind them are neither read nor written.
    const int64_t* n_kv_of_stream = nullptr;
    const int64_t* n_tokens_of_stream = nullptr;

    const uint16_t* mask = nullptr;  // f16 (n_kv, n_tokens, 1, n_stream or 1), added to the logits; null: none
    size_t mask_token_stride = 0, mask_stream_stride = 0;

    // Cells that have exact rows are attended to with these instead of their codes. Both or none; none unless n_exact >
    // 0.
    const ExactRows* exact_k = nullptr;
    const ExactRows* exact_v = nullptr;

    const float* sinks = nullptr;  // n_head logits that take part in the softmax's sum only; null: none

    void* out = nullptr;  // out_type (head_dim_v, n_head, n_tokens, n_stream), aligned as its elements
    FloatType out_type = FloatType::kF32;
    size_t out_head_stride = 0, out_token_stride = 0, out_stream_stride = 0;

    // The natural logarithm of what the row's softmax divided by: the sum of exp(logit) over the cells that it saw,
    // exact rows and sinks included; -infinity if it saw nothing and there are no sinks, NaN where out is. With it,
    // attention over parts of a cache merges to that over the whole (give sinks to one part only). Null: not wanted.
    float* lse = nullptr;  // (n_head, n_tokens, n_stream)
    size_t lse_head_stride = 0, lse_token_stride = 0, lse_stream_stride = 0;
};

// A pointer so many bytes further.
template <class T>
TQ_INLINE T* at_byte(T* base, size_t bytes) {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(base) + bytes);
}

inline constexpr uint16_t kHalfMinusInfinity = 0xfc00;  // of a mask: the cell is not seen

// ALiBi slope of a head (Press et al. 2021, as ggml computes it); 1 without ALiBi.
float alibi_slope(float max_bias, int n_head, int head);

}  // namespace tq
