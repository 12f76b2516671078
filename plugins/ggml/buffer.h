// The buffers of our buffer type: plain host memory, in which KV tensors take their packed size.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "abi.h"
#include "kv_tensor.h"

namespace tq::plugin {

class KvBuffer {
  public:
    static constexpr size_t kAlignment = 128;

    // Null if there is no memory.
    static std::unique_ptr<KvBuffer> create(size_t size, const Config& config);
    ~KvBuffer();

    // The buffer type that the device registers, by which our buffers are recognized.
    static void set_type(ggml_backend_buffer_type_t type) { type_ = type; }

    // A buffer of our type for ggml, null if there is no memory.
    static ggml_backend_buffer_t allocate(size_t size, const Config& config, bool packs_on_init);

    // A buffer that holds those of the tensors that have no memory yet, KV tensors packed. Null if there is no memory
    // or if there is nothing to place.
    static ggml_backend_buffer_t allocate(ggml_tensor** tensors, int n, const Config& config);

    // Bytes that a tensor takes in our buffers.
    static size_t alloc_size(const ggml_tensor* tensor, const Config& config);
    // Bytes that allocate() takes for these tensors, padding included.
    static size_t alloc_size(ggml_tensor** tensors, int n, const Config& config);

    // Says whether a tensor's own buffer is of our type.
    static bool is_ours(const ggml_tensor* tensor);
    // Says whether it is one of the empty buffers that llama.cpp puts in the place of memory in a dry run.
    static bool is_dummy(const ggml_tensor* tensor);

    // The packed tensor that begins at a tensor's data, null if there is none. The tensor's buffer must be ours.
    static KvTensor* find(const ggml_tensor* root);

  private:
    KvBuffer(uint8_t* base, size_t size, const Config& config) : base_(base), size_(size), config_(config) {}
    static KvBuffer& of(ggml_backend_buffer_t buffer);
    static abi::BufferInterface interface(bool packs_on_init);
    static bool place(ggml_backend_buffer_t buffer, ggml_tensor** tensors, int n);
    void pack(ggml_tensor* tensor);
    static bool copy_tensor(ggml_backend_buffer_t buffer, const ggml_tensor* src, ggml_tensor* dst);

    static inline ggml_backend_buffer_type_t type_ = nullptr;

    uint8_t* base_;
    size_t size_;
    Config config_;
    std::map<const void*, std::unique_ptr<KvTensor>> tensors_;  // keyed by their data pointer
};

// The packed tensor behind a tensor or view. Null if there is none: what is packed is known to the buffer that a tensor
// lies in, not by the tensor's name or its `extra`, which a host may rebuild.
KvTensor* kv_tensor_of(const ggml_tensor* tensor);

}  // namespace tq::plugin
