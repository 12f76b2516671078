#include "buffer.h"

#include <cstring>
#include <new>

#include "log.h"

namespace tq::plugin {
namespace {

abi::Buffer* raw(ggml_backend_buffer_t buffer) { return reinterpret_cast<abi::Buffer*>(buffer); }

// Byte offset of a tensor's byte 0 in its root.
size_t offset_in_root(const ggml_tensor* tensor) { return tensor->view_src ? tensor->view_offs : 0; }

void set_tensor(ggml_backend_buffer_t, ggml_tensor* tensor, const void* data, size_t offset, size_t size) {
    if (KvTensor* kv = kv_tensor_of(tensor)) {
        kv->write(data, offset_in_root(tensor) + offset, size);
    } else {
        std::memcpy(static_cast<char*>(tensor->data) + offset, data, size);
    }
}

void get_tensor(ggml_backend_buffer_t, const ggml_tensor* tensor, void* data, size_t offset, size_t size) {
    if (KvTensor* kv = kv_tensor_of(tensor)) {
        kv->read(data, offset_in_root(tensor) + offset, size);
    } else {
        std::memcpy(data, static_cast<const char*>(tensor->data) + offset, size);
    }
}

void memset_tensor(ggml_backend_buffer_t, ggml_tensor* tensor, uint8_t value, size_t offset, size_t size) {
    if (KvTensor* kv = kv_tensor_of(tensor)) {
        kv->fill(value, offset_in_root(tensor) + offset, size);
    } else {
        std::memset(static_cast<char*>(tensor->data) + offset, value, size);
    }
}

}  // namespace

KvTensor* kv_tensor_of(const ggml_tensor* tensor) {
    const ggml_tensor* root = root_of(tensor);
    return kv_side(root) ? static_cast<KvTensor*>(root->extra) : nullptr;
}

std::unique_ptr<KvBuffer> KvBuffer::create(size_t size, const Config& config) {
    auto* base = static_cast<uint8_t*>(::operator new[](size, std::align_val_t{kAlignment}, std::nothrow));
    if (!base) return nullptr;
    return std::unique_ptr<KvBuffer>(new KvBuffer(base, size, config));
}

KvBuffer::~KvBuffer() { ::operator delete[](base_, std::align_val_t{kAlignment}); }

KvBuffer& KvBuffer::of(ggml_backend_buffer_t buffer) { return *static_cast<KvBuffer*>(raw(buffer)->context); }

size_t KvBuffer::alloc_size(const ggml_tensor* tensor, const Config& config) {
    const std::optional<Side> side = kv_side(tensor);
    return side ? KvTensor::allocated_bytes(tensor, *side, config) : ggml_nbytes(tensor);
}

ggml_status KvBuffer::init_tensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor) try {
    const std::optional<Side> side = kv_side(tensor);
    if (!side) return GGML_STATUS_SUCCESS;
    KvBuffer& self = of(buffer);
    auto& kv = self.tensors_[tensor->data];
    if (!kv) kv = std::make_unique<KvTensor>(tensor, *side, self.config_, static_cast<uint8_t*>(tensor->data));
    tensor->extra = kv.get();
    return GGML_STATUS_SUCCESS;
} catch (const std::bad_alloc&) {
    return GGML_STATUS_ALLOC_FAILED;
}

// ggml has checked that both have the same nominal layout and size.
bool KvBuffer::copy_tensor(ggml_backend_buffer_t, const ggml_tensor* src, ggml_tensor* dst) {
    KvTensor* from = kv_tensor_of(src);
    KvTensor* to = kv_tensor_of(dst);
    if (from && from == to) return to->copy_within(offset_in_root(src), offset_in_root(dst), ggml_nbytes(src));
    if (from || to || !src->buffer || raw(src->buffer)->iface.cpy_tensor != &copy_tensor) return false;
    std::memcpy(dst->data, src->data, ggml_nbytes(src));
    return true;
}

abi::BufferInterface KvBuffer::interface() {
    abi::BufferInterface iface{};
    iface.free_buffer = [](ggml_backend_buffer_t buffer) { delete &of(buffer); };
    iface.get_base = [](ggml_backend_buffer_t buffer) -> void* { return of(buffer).base_; };
    iface.init_tensor = init_tensor;
    iface.memset_tensor = memset_tensor;
    iface.set_tensor = set_tensor;
    iface.get_tensor = get_tensor;
    iface.cpy_tensor = copy_tensor;
    iface.clear = [](ggml_backend_buffer_t buffer, uint8_t value) {
        KvBuffer& self = of(buffer);
        std::memset(self.base_, value, self.size_);
        for (auto& [data, kv] : self.tensors_) kv->forget_exact();
    };
    return iface;
}

}  // namespace tq::plugin
