#include "layer_graph.h"

#include <cmath>
#include <numeric>

#include <ggml-alloc.h>

namespace tq::e2e {
namespace {

constexpr size_t kDataBytes = size_t{8} << 20;
constexpr size_t kTensors = 64;

ggml_tensor* view_of_stream(ggml_context* ctx, ggml_tensor* cache, int64_t head_dim, const Shape& s) {
    ggml_tensor* view = ggml_view_4d(ctx, cache, head_dim, s.n_head_kv, s.n_kv, 1, ggml_row_size(cache->type, head_dim),
                                     cache->nb[1], cache->nb[2], 0);
    return ggml_permute(ctx, view, 0, 2, 1, 3);
}

ggml_tensor* all_rows(ggml_context* ctx, ggml_tensor* cache) {
    return ggml_reshape_2d(ctx, cache, cache->ne[0], cache->ne[1] * cache->ne[2]);
}

void set(ggml_tensor* tensor, const Floats& values) {
    if (tensor->type == GGML_TYPE_F32) return ggml_backend_tensor_set(tensor, values.data(), 0, ggml_nbytes(tensor));
    std::vector<ggml_fp16_t> halves(values.size());
    ggml_fp32_to_fp16_row(values.data(), halves.data(), static_cast<int64_t>(values.size()));
    ggml_backend_tensor_set(tensor, halves.data(), 0, ggml_nbytes(tensor));
}

void set_random(ggml_tensor* tensor, unsigned seed) {
    set(tensor, random_rows(ggml_nelements(tensor) / tensor->ne[0], tensor->ne[0], seed));
}

// [n_kv, n_tokens]; with holes a token sees a third less, and others than its neighbour does.
void set_mask(ggml_tensor* mask, bool holes) {
    Floats values;
    for (int64_t token = 0; token < mask->ne[1]; ++token) {
        for (int64_t cell = 0; cell < mask->ne[0]; ++cell) {
            values.push_back(holes && (cell + token) % 3 == 1 ? -INFINITY : -static_cast<float>(cell % 8) / 8);
        }
    }
    set(mask, values);
}

}  // namespace

GraphMemory::GraphMemory(ggml_backend_t backend)
    : tensors_(ggml_tensor_overhead() * kTensors + ggml_graph_overhead()),
      data_(ggml_backend_alloc_buffer(backend, kDataBytes)) {}

ggml_context* GraphMemory::restart() {
    context_.reset();
    context_.reset(ggml_init({tensors_.size(), tensors_.data(), /*no_alloc=*/true}));
    return context_.get();
}

void GraphMemory::allocate() {
    ggml_tallocr allocator = ggml_tallocr_new(data_.get());
    for (ggml_tensor* t = ggml_get_first_tensor(context_.get()); t; t = ggml_get_next_tensor(context_.get(), t)) {
        if (t->view_src) {
            ggml_backend_view_init(t);
        } else {
            ggml_tallocr_alloc(&allocator, t);
        }
    }
}

LayerGraph::LayerGraph(GraphMemory& memory, Layer& layer, const Shape& s, ggml_type row_type) {
    ggml_context* ctx = memory.restart();
    k_rows = ggml_new_tensor_2d(ctx, row_type, s.n_embd(true), s.n_tokens);
    v_rows = ggml_new_tensor_2d(ctx, row_type, s.n_embd(false), s.n_tokens);
    other_rows = ggml_new_tensor_2d(ctx, row_type, s.n_embd(true), s.n_tokens);
    indices = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, s.n_tokens);
    ggml_tensor* raw_q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, s.head_dim_k, s.n_head, s.n_tokens);
    ggml_tensor* raw_other_q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, s.head_dim_k, s.n_head, s.n_tokens);
    mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, s.n_kv, s.n_tokens);
    other_mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, s.n_kv, s.n_tokens);
    sinks = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, s.n_head);
    plain_k = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, s.head_dim_k, s.n_kv, s.n_head_kv);
    plain_v = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, s.head_dim_v, s.n_kv, s.n_head_kv);
    other_attention = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, s.head_dim_v, s.n_head, s.n_tokens);

    q = ggml_permute(ctx, ggml_scale(ctx, raw_q, 1), 0, 2, 1, 3);
    other_q = ggml_permute(ctx, raw_other_q, 0, 2, 1, 3);
    k = view_of_stream(ctx, layer.keys(), s.head_dim_k, s);
    v = view_of_stream(ctx, layer.values(), s.head_dim_v, s);
    store_k = ggml_set_rows(ctx, all_rows(ctx, layer.keys()), k_rows, indices);
    store_v = ggml_set_rows(ctx, all_rows(ctx, layer.values()), v_rows, indices);
    attention =
        ggml_flash_attn_ext(ctx, q, k, v, mask, 1 / std::sqrt(static_cast<float>(s.head_dim_k)), s.max_bias, s.softcap);
    if (s.sinks) ggml_flash_attn_ext_add_sinks(attention, sinks);
    out = ggml_scale(ctx, attention, 2);

    graph = ggml_new_graph(ctx);
    for (ggml_tensor* node : {q, store_k, store_v, out}) ggml_build_forward_expand(graph, node);
    memory.allocate();
    unsigned seed = 10;
    for (ggml_tensor* t : {k_rows, v_rows, other_rows, raw_q, raw_other_q, sinks, plain_k, plain_v})
        set_random(t, seed++);
    set_mask(mask, false);
    set_mask(other_mask, true);
    std::vector<int64_t> cells(static_cast<size_t>(s.n_tokens));
    std::iota(cells.begin(), cells.end(), 0);
    set_indices(cells);
}

void LayerGraph::set_indices(const std::vector<int64_t>& cells) {
    ggml_backend_tensor_set(indices, cells.data(), 0, cells.size() * sizeof(int64_t));
}

Floats LayerGraph::output() const {
    Floats result(static_cast<size_t>(ggml_nelements(out)));
    ggml_backend_tensor_get(out, result.data(), 0, ggml_nbytes(out));
    return result;
}

}  // namespace tq::e2e
