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

    // The functions that ggml calls.
    static abi::BufferInterface interface();

    static size_t alloc_size(const ggml_tensor* tensor, const Config& config);

private:
    KvBuffer(uint8_t* base, size_t size, const Config& config) : base_(base), size_(size), config_(config) {}
    static KvBuffer& of(ggml_backend_buffer_t buffer);
    static ggml_status init_tensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor);
    static bool copy_tensor(ggml_backend_buffer_t buffer, const ggml_tensor* src, ggml_tensor* dst);

    uint8_t* base_;
    size_t size_;
    Config config_;
    std::map<const void*, std::unique_ptr<KvTensor>> tensors_;   // by their data pointer
};

// The packed tensor behind a tensor or view, null if there is none (not a KV tensor, or not allocated yet).
KvTensor* kv_tensor_of(const ggml_tensor* tensor);

}  // namespace tq::plugin
