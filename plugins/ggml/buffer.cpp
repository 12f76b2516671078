#include "buffer.h"

#include <cstring>
#include <new>
#include <span>

#include "guard.h"
#include "turboquant/base/huge_pages.h"

namespace tq::plugin {
namespace {

abi::Buffer* raw(ggml_backend_buffer_t buffer) {
    return reinterpret_cast<abi::Buffer*>(buffer);
}

// Byte offset of a tensor's byte 0 in its root.
size_t offset_in_root(const ggml_tensor* tensor) {
    return tensor->view_src ? tensor->view_offs : 0;
}

constexpr size_t padded(size_t bytes) {
    return (bytes + KvBuffer::kAlignment - 1) / KvBuffer::kAlignment * KvBuffer::kAlignment;
}

bool needs_memory(const ggml_tensor* tensor) {
    return !tensor->data && !tensor->view_src;
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor* tensor, const void* data, size_t offset, size_t size) {
    KvTensor* kv = kv_tensor_of(tensor);
    if (!kv) {
        std::memcpy(static_cast<char*>(tensor->data) + offset, data, size);
        return;
    }
    guarded("writing to the KV cache", [&] { kv->write(data, offset_in_root(tensor) + offset, size); });
}

void get_tensor(ggml_backend_buffer_t, const ggml_tensor* tensor, void* data, size_t offset, size_t size) {
    KvTensor* kv = kv_tensor_of(tensor);
    if (!kv) {
        std::memcpy(data, static_cast<const char*>(tensor->data) + offset, size);
        return;
    }
    guarded("reading the KV cache", [&] { kv->read(data, offset_in_root(tensor) + offset, size); });
}

void memset_tensor(ggml_backend_buffer_t, ggml_tensor* tensor, uint8_t value, size_t offset, size_t size) {
    KvTensor* kv = kv_tensor_of(tensor);
    if (!kv) {
        std::memset(static_cast<char*>(tensor->data) + offset, value, size);
        return;
    }
    guarded("filling the KV cache", [&] { kv->fill(value, offset_in_root(tensor) + offset, size); });
}

}  // namespace

KvTensor* kv_tensor_of(const ggml_tensor* tensor) {
    const ggml_tensor* root = root_of(tensor);
    return KvBuffer::is_ours(root) ? KvBuffer::find(root) : nullptr;
}

std::unique_ptr<KvBuffer> KvBuffer::create(size_t size, const Config& config) {
    auto* base = static_cast<uint8_t*>(::operator new[](size, std::align_val_t{kAlignment}, std::nothrow));
    if (!base) return nullptr;
    prefer_huge_pages(base, size);
    return std::unique_ptr<KvBuffer>(new KvBuffer(base, size, config));
}

KvBuffer::~KvBuffer() {
    ::operator delete[](base_, std::align_val_t{kAlignment});
}

KvBuffer& KvBuffer::of(ggml_backend_buffer_t buffer) {
    return *static_cast<KvBuffer*>(raw(buffer)->context);
}

bool KvBuffer::is_ours(const ggml_tensor* tensor) {
    return tensor->buffer && raw(tensor->buffer)->buft == type_;
}

bool KvBuffer::is_dummy(const ggml_tensor* tensor) {
    return is_ours(tensor) && !raw(tensor->buffer)->context;
}

KvTensor* KvBuffer::find(const ggml_tensor* root) {
    if (is_dummy(root)) return nullptr;
    const auto& tensors = of(root->buffer).tensors_;
    const auto found = tensors.find(root->data);
    return found == tensors.end() ? nullptr : found->second.get();
}

ggml_backend_buffer_t KvBuffer::allocate(size_t size, const Config& config, bool packs_on_init) {
    std::unique_ptr<KvBuffer> buffer = create(size, config);
    if (!buffer) return nullptr;
    return ggml_backend_buffer_init(type_, interface(packs_on_init), buffer.release(), size);
}

ggml_backend_buffer_t KvBuffer::allocate(ggml_tensor** tensors, int n, const Config& config) {
    const size_t size = alloc_size(tensors, n, config);
    if (size == 0) return nullptr;
    ggml_backend_buffer_t buffer = allocate(size, config, /*packs_on_init=*/false);
    if (!buffer) return nullptr;
    if (guarded("allocating the KV cache", false, [&] { return place(buffer, tensors, n); })) return buffer;
    ggml_backend_buffer_free(buffer);
    return nullptr;
}

// ggml's own functions for this ask for a nominal tensor's size, which a packed one does not take.
bool KvBuffer::place(ggml_backend_buffer_t buffer, ggml_tensor** tensors, int n) {
    KvBuffer& self = of(buffer);
    size_t used = 0;
    for (ggml_tensor* tensor : std::span(tensors, static_cast<size_t>(n))) {
        if (needs_memory(tensor)) {
            tensor->buffer = buffer;
            tensor->data = self.base_ + used;
            used += padded(alloc_size(tensor, self.config_));
            self.pack(tensor);
        } else if (tensor->view_src && !tensor->buffer && ggml_backend_view_init(tensor) != GGML_STATUS_SUCCESS) {
            return false;
        }
    }
    return true;
}

size_t KvBuffer::alloc_size(const ggml_tensor* tensor, const Config& config) {
    const std::optional<Side> side = kv_side(tensor);
    return side ? KvTensor::allocated_bytes(tensor, *side, config) : ggml_nbytes(tensor);
}

size_t KvBuffer::alloc_size(ggml_tensor** tensors, int n, const Config& config) {
    size_t size = 0;
    for (const ggml_tensor* tensor : std::span(tensors, static_cast<size_t>(n))) {
        if (needs_memory(tensor)) size += padded(alloc_size(tensor, config));
    }
    return size;
}

void KvBuffer::pack(ggml_tensor* tensor) {
    const std::optional<Side> side = kv_side(tensor);
    if (!side) return;
    auto& kv = tensors_[tensor->data];
    if (!kv) kv = std::make_unique<KvTensor>(tensor, *side, config_, static_cast<uint8_t*>(tensor->data));
}

// ggml has checked that both have the same nominal layout and size.
bool KvBuffer::copy_tensor(ggml_backend_buffer_t, const ggml_tensor* src, ggml_tensor* dst) {
    KvTensor* from = kv_tensor_of(src);
    KvTensor* to = kv_tensor_of(dst);
    if (from && from == to) return to->copy_within(offset_in_root(src), offset_in_root(dst), ggml_nbytes(src));
    if (from || to || !is_ours(src)) return false;
    std::memcpy(dst->data, src->data, ggml_nbytes(src));
    return true;
}

abi::BufferInterface KvBuffer::interface(bool packs_on_init) {
    abi::BufferInterface iface{};
    iface.free_buffer = [](ggml_backend_buffer_t buffer) { delete &of(buffer); };
    iface.get_base = [](ggml_backend_buffer_t buffer) -> void* { return of(buffer).base_; };
    if (packs_on_init) {
        iface.init_tensor = [](ggml_backend_buffer_t buffer, ggml_tensor* tensor) {
            return guarded("allocating the KV cache", GGML_STATUS_ALLOC_FAILED, [&] {
                of(buffer).pack(tensor);
                return GGML_STATUS_SUCCESS;
            });
        };
    }
    iface.memset_tensor = memset_tensor;
    iface.set_tensor = set_tensor;
    iface.get_tensor = get_tensor;
    iface.cpy_tensor = [](ggml_backend_buffer_t buffer, const ggml_tensor* src, ggml_tensor* dst) {
        return guarded("copying within the KV cache", false, [&] { return copy_tensor(buffer, src, dst); });
    };
    iface.clear = [](ggml_backend_buffer_t buffer, uint8_t value) {
        KvBuffer& self = of(buffer);
        std::memset(self.base_, value, self.size_);
        guarded("clearing the KV cache", [&] {
            for (auto& [data, kv] : self.tensors_) kv->forget_exact();
        });
    };
    return iface;
}

}  // namespace tq::plugin
