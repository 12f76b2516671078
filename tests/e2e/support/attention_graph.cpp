#include "attention_graph.h"

#include <cmath>
#include <numeric>
#include <random>

#include <ggml-alloc.h>

namespace tq::e2e {
namespace {

// A context for the nodes of one graph, their memory on the backend, and its run.
class Graph {
  public:
    explicit Graph(ggml_backend_t backend)
        : backend_(backend),
          context_(ggml_init({ggml_tensor_overhead() * 64 + ggml_graph_overhead(), nullptr, true})) {}

    ggml_context* context() { return context_.get(); }

    // A leaf whose content is known before the run.
    template <class T>
    ggml_tensor* input(ggml_type type, std::vector<int64_t> ne, std::vector<T> data) {
        ggml_tensor* tensor = ggml_new_tensor(context(), type, static_cast<int>(ne.size()), ne.data());
        const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
        inputs_.push_back({tensor, {bytes, bytes + data.size() * sizeof(T)}});
        return tensor;
    }
    ggml_tensor* input_f32(std::vector<int64_t> ne, const Floats& data) {
        return input(GGML_TYPE_F32, std::move(ne), data);
    }
    ggml_tensor* input_f16(std::vector<int64_t> ne, const Floats& data) {
        std::vector<ggml_fp16_t> halves(data.size());
        ggml_fp32_to_fp16_row(data.data(), halves.data(), static_cast<int64_t>(data.size()));
        return input(GGML_TYPE_F16, std::move(ne), halves);
    }

    ggml_status run(ggml_tensor* result) {
        ggml_cgraph* graph = ggml_new_graph(context());
        ggml_build_forward_expand(graph, result);
        buffer_.reset(ggml_backend_alloc_ctx_tensors(context(), backend_));
        for (const Input& input : inputs_)
            ggml_backend_tensor_set(input.tensor, input.bytes.data(), 0, input.bytes.size());
        return ggml_backend_graph_compute(backend_, graph);
    }

  private:
    struct Input {
        ggml_tensor* tensor;
        std::vector<uint8_t> bytes;
    };
    ggml_backend_t backend_;
    ggml_context_ptr context_;
    ggml_backend_buffer_ptr buffer_;
    std::vector<Input> inputs_;
};

// 0 where a token sees a cell. Every token sees cell 0 of its stream.
Floats mask_values(const Shape& s) {
    Floats mask;
    for (int64_t row = 0; row < s.n_stream * s.n_tokens; ++row) {
        for (int64_t cell = 0; cell < s.n_kv; ++cell) {
            const bool hole = s.causal_holes && cell > 0 && ((cell + row) % 3 == 0 || cell > s.n_kv - 7 * row);
            mask.push_back(hole ? -INFINITY
                                : -s.max_bias / 8 * static_cast<float>(s.n_kv - cell) / static_cast<float>(s.n_kv));
        }
    }
    return mask;
}

}  // namespace

Floats random_rows(int64_t n_rows, int64_t width, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    Floats rows(static_cast<size_t>(n_rows * width));
    for (size_t i = 0; i < rows.size(); ++i)
        rows[i] = normal(random) * (static_cast<int64_t>(i) % width % 16 == 3 ? 4.0f : 1.0f);
    return rows;
}

double relative_error(const Floats& a, const Floats& b) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < b.size(); ++i) {
        error += std::pow(double{a.at(i)} - double{b[i]}, 2);
        norm += std::pow(double{b[i]}, 2);
    }
    return std::sqrt(error / norm);
}

void set_n_threads(ggml_backend_t backend, int n_threads) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
    void* set = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    reinterpret_cast<ggml_backend_set_n_threads_t>(set)(backend, n_threads);
}

Layer::Layer(ggml_backend_t backend, const Shape& shape, ggml_backend_buffer_type_t keys_in,
             ggml_backend_buffer_type_t values_in)
    : backend_(backend),
      shape_(shape),
      context_(ggml_init({ggml_tensor_overhead() * 4, nullptr, true})),
      keys_in_(keys_in ? keys_in : ggml_backend_get_default_buffer_type(backend)),
      values_in_(values_in ? values_in : ggml_backend_get_default_buffer_type(backend)) {
    keys_ = ggml_new_tensor_3d(context_.get(), GGML_TYPE_F16, shape.n_embd(true), shape.n_cells, shape.n_stream);
    values_ = ggml_new_tensor_3d(context_.get(), GGML_TYPE_F16, shape.n_embd(false), shape.n_cells, shape.n_stream);
    ggml_set_name(keys_, "cache_k_l0");
    ggml_set_name(values_, "cache_v_l0");
    allocate();
}

void Layer::allocate() {
    buffer_.reset();
    values_buffer_.reset();
    for (ggml_tensor* cache : {keys_, values_}) {
        cache->data = nullptr;
        cache->buffer = nullptr;
        cache->extra = nullptr;
    }
    if (keys_in_ == values_in_) {
        buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(context_.get(), keys_in_));
    } else {
        buffer_.reset(ggml_backend_buft_alloc_buffer_n(keys_in_, &keys_, 1));
        values_buffer_.reset(ggml_backend_buft_alloc_buffer_n(values_in_, &values_, 1));
        ggml_backend_buffer_clear(values_buffer_.get(), 0);
    }
    ggml_backend_buffer_clear(buffer_.get(), 0);
}

ggml_status Layer::store(ggml_tensor* cache, const Floats& rows, const std::vector<int64_t>& indices,
                         ggml_type row_type, ggml_type index_type) {
    Graph graph(backend_);
    const int64_t n = static_cast<int64_t>(indices.size());
    ggml_tensor* source =
        row_type == GGML_TYPE_F16 ? graph.input_f16({cache->ne[0], n}, rows) : graph.input_f32({cache->ne[0], n}, rows);
    ggml_tensor* where = index_type == GGML_TYPE_I32
                             ? graph.input(GGML_TYPE_I32, {n}, std::vector<int32_t>(indices.begin(), indices.end()))
                             : graph.input(GGML_TYPE_I64, {n}, indices);
    ggml_tensor* all = ggml_reshape_2d(graph.context(), cache, cache->ne[0], shape_.n_rows());
    return graph.run(ggml_set_rows(graph.context(), all, source, where));
}

ggml_status Layer::store_transposed(const Floats& rows) {
    Graph graph(backend_);
    const int64_t n = static_cast<int64_t>(rows.size());
    std::vector<int64_t> indices(rows.size());
    std::iota(indices.begin(), indices.end(), 0);
    ggml_tensor* values = ggml_reshape_2d(graph.context(), values_, 1, ggml_nelements(values_));
    return graph.run(ggml_set_rows(graph.context(), values, graph.input_f32({1, n}, rows),
                                   graph.input(GGML_TYPE_I64, {n}, indices)));
}

void Layer::fill(unsigned seed) {
    std::vector<int64_t> all(static_cast<size_t>(shape_.n_rows()));
    std::iota(all.begin(), all.end(), 0);
    store(keys_, random_rows(shape_.n_rows(), keys_->ne[0], seed), all);
    store(values_, random_rows(shape_.n_rows(), values_->ne[0], seed + 1), all);
}

ggml_tensor* Layer::head_view(ggml_context* ctx, ggml_tensor* cache, int64_t head_dim) {
    ggml_tensor* view = ggml_view_4d(ctx, cache, head_dim, shape_.n_head_kv, shape_.n_kv, shape_.n_stream,
                                     ggml_row_size(cache->type, head_dim), cache->nb[1], cache->nb[2], 0);
    return ggml_permute(ctx, view, 0, 2, 1, 3);
}

Floats Layer::attend(unsigned seed, int n_threads) {
    const Shape& s = shape_;
    Graph graph(backend_);
    ggml_context* ctx = graph.context();
    // The matmul leaves queries as [head_dim, n_head, n_tokens, n_stream].
    ggml_tensor* q = graph.input_f32({s.head_dim_k, s.n_head, s.n_tokens, s.n_stream},
                                     random_rows(s.n_head * s.n_tokens * s.n_stream, s.head_dim_k, seed));
    ggml_tensor* mask = graph.input_f16({s.n_kv, s.n_tokens, 1, s.n_stream}, mask_values(s));
    ggml_tensor* out = ggml_flash_attn_ext(ctx, ggml_permute(ctx, q, 0, 2, 1, 3), head_view(ctx, keys_, s.head_dim_k),
                                           head_view(ctx, values_, s.head_dim_v), mask,
                                           1.0f / std::sqrt(static_cast<float>(s.head_dim_k)), s.max_bias, s.softcap);
    if (s.sinks) {
        ggml_tensor* sinks = graph.input_f32({s.n_head}, random_rows(1, s.n_head, seed + 1));
        ggml_flash_attn_ext_add_sinks(out, sinks);
    }
    set_n_threads(backend_, n_threads);
    if (graph.run(out) != GGML_STATUS_SUCCESS) return {};
    Floats result(static_cast<size_t>(ggml_nelements(out)));
    ggml_backend_tensor_get(out, result.data(), 0, ggml_nbytes(out));
    return result;
}

std::vector<uint8_t> Layer::compute(const std::function<ggml_tensor*(ggml_context*)>& make) {
    Graph graph(backend_);
    ggml_tensor* out = make(graph.context());
    if (graph.run(out) != GGML_STATUS_SUCCESS) return {};
    std::vector<uint8_t> bytes(ggml_nbytes(out));
    ggml_backend_tensor_get(out, bytes.data(), 0, bytes.size());
    return bytes;
}

ggml_status Layer::shift_keys(const std::vector<int32_t>& shift) {
    Graph graph(backend_);
    ggml_context* ctx = graph.context();
    ggml_tensor* view = ggml_view_3d(ctx, keys_, shape_.head_dim_k, shape_.n_head_kv, shape_.n_rows(),
                                     ggml_row_size(keys_->type, shape_.head_dim_k), keys_->nb[1], 0);
    ggml_tensor* by = graph.input(GGML_TYPE_I32, {shape_.n_rows()}, shift);
    return graph.run(ggml_rope_ext_inplace(ctx, view, by, nullptr, static_cast<int>(shape_.head_dim_k),
                                           GGML_ROPE_TYPE_NEOX, 0, 10000.0f, 1.0f, 0.0f, 1.0f, 0.0f, 0.0f));
}

std::vector<uint16_t> Layer::read(ggml_tensor* cache) {
    std::vector<uint16_t> rows(static_cast<size_t>(ggml_nelements(cache)));
    ggml_backend_tensor_get(cache, rows.data(), 0, ggml_nbytes(cache));
    return rows;
}

void Layer::write(ggml_tensor* cache, const std::vector<uint16_t>& rows) {
    ggml_backend_tensor_set(cache, rows.data(), 0, ggml_nbytes(cache));
}

Floats Layer::read_floats(ggml_tensor* cache) {
    const std::vector<uint16_t> halves = read(cache);
    Floats floats(halves.size());
    ggml_fp16_to_fp32_row(halves.data(), floats.data(), static_cast<int64_t>(halves.size()));
    return floats;
}

ggml_tensor* Layer::stream_view(ggml_context* ctx, ggml_tensor* cache, int64_t stream) {
    return ggml_view_2d(ctx, cache, cache->ne[0], cache->ne[1], cache->nb[1],
                        static_cast<size_t>(stream) * cache->nb[2]);
}

void Layer::copy_stream(ggml_tensor* cache, int64_t from, int64_t to) {
    ggml_context_ptr views(ggml_init({ggml_tensor_overhead() * 2, nullptr, true}));
    ggml_tensor* source = stream_view(views.get(), cache, from);
    ggml_tensor* target = stream_view(views.get(), cache, to);
    ggml_backend_view_init(source);
    ggml_backend_view_init(target);
    ggml_backend_tensor_copy(source, target);
}

std::vector<uint8_t> Layer::packed(ggml_tensor* cache) {
    ggml_tensor unplaced = *cache;  // the tensor as it was before it had memory
    unplaced.data = nullptr;
    ggml_tensor* tensors[] = {&unplaced};
    const size_t size = ggml_backend_buft_get_alloc_size_n(ggml_backend_buffer_get_type(buffer_.get()), tensors, 1);
    const auto* bytes = static_cast<const uint8_t*>(cache->data);
    return {bytes, bytes + size};
}

}  // namespace tq::e2e
