// A KV cache of one layer and the graphs that llama.cpp builds on it, by hand: the same code on the plugin's backend,
// where the cache is packed, and on ggml's CPU backend, where it is dense.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml.h>

namespace tq::e2e {

struct Shape {
    int64_t head_dim_k = 64, head_dim_v = 64;
    int64_t n_head = 9, n_head_kv = 3;
    int64_t n_cells = 256;  // cells that a stream has
    int64_t n_stream = 1;
    int64_t n_tokens = 5;  // tokens that a stream computes
    int64_t n_kv = 256;    // cells that attention looks at
    float softcap = 0, max_bias = 0;
    bool sinks = false;
    bool causal_holes = false;  // each token sees another subset of the cells

    int64_t n_embd(bool key) const { return (key ? head_dim_k : head_dim_v) * n_head_kv; }
    int64_t n_rows() const { return n_cells * n_stream; }
};

using Floats = std::vector<float>;

// Normally distributed, with a few large channels, as keys have; the same for the same seed.
Floats random_rows(int64_t n_rows, int64_t width, unsigned seed);

// sqrt(|a-b|^2 / |b|^2)
double relative_error(const Floats& a, const Floats& b);

void set_n_threads(ggml_backend_t backend, int n_threads);

class Layer {
  public:
    // Keys and values lie in buffers of these types; null: of the backend's own.
    Layer(ggml_backend_t backend, const Shape& shape, ggml_backend_buffer_type_t keys_in = nullptr,
          ggml_backend_buffer_type_t values_in = nullptr);

    // Frees the cache's memory and allocates it again; all zeros. The tensors stay.
    void allocate();

    ggml_tensor* keys() { return keys_; }
    ggml_tensor* values() { return values_; }

    // SET_ROWS of float rows, one per index, given to ggml as f32 or f16 and with i32 or i64 indices.
    ggml_status store(ggml_tensor* cache, const Floats& rows, const std::vector<int64_t>& indices,
                      ggml_type row_type = GGML_TYPE_F32, ggml_type index_type = GGML_TYPE_I64);
    // SET_ROWS as llama.cpp does it for V without flash attention: one value a row.
    ggml_status store_transposed(const Floats& rows);
    // Stores random rows in every cell of both sides.
    void fill(unsigned seed);

    // FLASH_ATTN_EXT of random queries; empty if the graph failed.
    Floats attend(unsigned seed, int n_threads = 2);

    // The context shift of llama.cpp: ROPE in place on the key rows, by shift[row].
    ggml_status shift_keys(const std::vector<int32_t>& shift);

    // Rows in nominal form, f16.
    std::vector<uint16_t> read(ggml_tensor* cache);
    void write(ggml_tensor* cache, const std::vector<uint16_t>& rows);
    Floats read_floats(ggml_tensor* cache);
    // Copies the rows of a whole stream onto another one.
    void copy_stream(ggml_tensor* cache, int64_t from, int64_t to);

    // The bytes behind the tensor in our buffer.
    std::vector<uint8_t> packed(ggml_tensor* cache);

    ggml_backend_buffer_t buffer() { return buffer_.get(); }

    // The result of make(context), computed on this layer's backend; empty if the graph failed.
    std::vector<uint8_t> compute(const std::function<ggml_tensor*(ggml_context*)>& make);

  private:
    ggml_tensor* head_view(ggml_context* ctx, ggml_tensor* cache, int64_t head_dim);
    ggml_tensor* stream_view(ggml_context* ctx, ggml_tensor* cache, int64_t stream);

    ggml_backend_t backend_;
    Shape shape_;
    ggml_context_ptr context_;
    ggml_tensor* keys_;
    ggml_tensor* values_;
    ggml_backend_buffer_type_t keys_in_, values_in_;
    ggml_backend_buffer_ptr buffer_, values_buffer_;  // all in the first one where both are of the same type
};

}  // namespace tq::e2e
