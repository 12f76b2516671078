// The interface between ggml and an out-of-tree backend, written down once: upstream keeps it in an internal header
// that is not installed, and changes it under GGML_BACKEND_API_VERSION. Members are in upstream's order; only their
// types matter. API 2: ggml 0.25.x. API 3: ggml 0.26 (the buffer type gained alloc_buffer_n and get_alloc_size_n).
#pragma once

#include <cstddef>
#include <cstdint>

#include <ggml-backend.h>
#include <ggml.h>

namespace tq::plugin::abi {

template <int api>
struct BufferTypeInterface;

template <>
struct BufferTypeInterface<2> {
    const char* (*get_name)(ggml_backend_buffer_type_t);
    ggml_backend_buffer_t (*alloc_buffer)(ggml_backend_buffer_type_t, size_t size);
    size_t (*get_alignment)(ggml_backend_buffer_type_t);
    size_t (*get_max_size)(ggml_backend_buffer_type_t);
    size_t (*get_alloc_size)(ggml_backend_buffer_type_t, const ggml_tensor*);
    bool (*is_host)(ggml_backend_buffer_type_t);
};

template <>
struct BufferTypeInterface<3> {
    const char* (*get_name)(ggml_backend_buffer_type_t);
    ggml_backend_buffer_t (*alloc_buffer)(ggml_backend_buffer_type_t, size_t size);
    ggml_backend_buffer_t (*alloc_buffer_n)(ggml_backend_buffer_type_t, ggml_tensor** tensors, int n_tensors);
    size_t (*get_alignment)(ggml_backend_buffer_type_t);
    size_t (*get_max_size)(ggml_backend_buffer_type_t);
    size_t (*get_alloc_size)(ggml_backend_buffer_type_t, const ggml_tensor*);
    size_t (*get_alloc_size_n)(ggml_backend_buffer_type_t, ggml_tensor** tensors, int n_tensors);
    bool (*is_host)(ggml_backend_buffer_type_t);
};

template <int api>
struct BufferType {
    BufferTypeInterface<api> iface;
    ggml_backend_dev_t device;
    void* context;
};

struct BufferInterface {
    void (*free_buffer)(ggml_backend_buffer_t);
    void* (*get_base)(ggml_backend_buffer_t);
    ggml_status (*init_tensor)(ggml_backend_buffer_t, ggml_tensor*);
    void (*memset_tensor)(ggml_backend_buffer_t, ggml_tensor*, uint8_t value, size_t offset, size_t size);
    void (*set_tensor)(ggml_backend_buffer_t, ggml_tensor*, const void* data, size_t offset, size_t size);
    void (*get_tensor)(ggml_backend_buffer_t, const ggml_tensor*, void* data, size_t offset, size_t size);
    void (*set_tensor_2d)(ggml_backend_buffer_t, ggml_tensor*, const void*, size_t, size_t, size_t, size_t, size_t);
    void (*get_tensor_2d)(ggml_backend_buffer_t, const ggml_tensor*, void*, size_t, size_t, size_t, size_t, size_t);
    bool (*cpy_tensor)(ggml_backend_buffer_t, const ggml_tensor* src, ggml_tensor* dst);
    void (*clear)(ggml_backend_buffer_t, uint8_t value);
    void (*reset)(ggml_backend_buffer_t);
};

struct Buffer {
    BufferInterface iface;
    ggml_backend_buffer_type_t buft;
    void* context;
    size_t size;
    int usage;
};

struct BackendInterface {
    const char* (*get_name)(ggml_backend_t);
    void (*free)(ggml_backend_t);
    void (*set_tensor_async)(ggml_backend_t, ggml_tensor*, const void*, size_t, size_t);
    void (*get_tensor_async)(ggml_backend_t, const ggml_tensor*, void*, size_t, size_t);
    void (*set_tensor_2d_async)(ggml_backend_t, ggml_tensor*, const void*, size_t, size_t, size_t, size_t, size_t);
    void (*get_tensor_2d_async)(ggml_backend_t, const ggml_tensor*, void*, size_t, size_t, size_t, size_t, size_t);
    bool (*cpy_tensor_async)(ggml_backend_t, ggml_backend_t, const ggml_tensor*, ggml_tensor*);
    void (*synchronize)(ggml_backend_t);
    void* (*graph_plan_create)(ggml_backend_t, const ggml_cgraph*);
    void (*graph_plan_free)(ggml_backend_t, void*);
    void (*graph_plan_update)(ggml_backend_t, void*, const ggml_cgraph*);
    ggml_status (*graph_plan_compute)(ggml_backend_t, void*);
    ggml_status (*graph_compute)(ggml_backend_t, ggml_cgraph*);
    void (*event_record)(ggml_backend_t, ggml_backend_event_t);
    void (*event_wait)(ggml_backend_t, ggml_backend_event_t);
    void (*graph_optimize)();  // optional, its parameters differ between releases: never set
};

struct Backend {
    ggml_guid_t guid;
    BackendInterface iface;
    ggml_backend_dev_t device;
    void* context;
};

struct DeviceInterface {
    const char* (*get_name)(ggml_backend_dev_t);
    const char* (*get_description)(ggml_backend_dev_t);
    void (*get_memory)(ggml_backend_dev_t, size_t* free, size_t* total);
    enum ggml_backend_dev_type (*get_type)(ggml_backend_dev_t);
    void (*get_props)(ggml_backend_dev_t, ggml_backend_dev_props*);
    ggml_backend_t (*init_backend)(ggml_backend_dev_t, const char* params);
    ggml_backend_buffer_type_t (*get_buffer_type)(ggml_backend_dev_t);
    ggml_backend_buffer_type_t (*get_host_buffer_type)(ggml_backend_dev_t);
    ggml_backend_buffer_t (*buffer_from_host_ptr)(ggml_backend_dev_t, void*, size_t, size_t);
    bool (*supports_op)(ggml_backend_dev_t, const ggml_tensor*);
    bool (*supports_buft)(ggml_backend_dev_t, ggml_backend_buffer_type_t);
    bool (*offload_op)(ggml_backend_dev_t, const ggml_tensor*);
    ggml_backend_event_t (*event_new)(ggml_backend_dev_t);
    void (*event_free)(ggml_backend_dev_t, ggml_backend_event_t);
    void (*event_synchronize)(ggml_backend_dev_t, ggml_backend_event_t);
};

struct Device {
    DeviceInterface iface;
    ggml_backend_reg_t reg;
    void* context;
};

struct RegistryInterface {
    const char* (*get_name)(ggml_backend_reg_t);
    size_t (*get_device_count)(ggml_backend_reg_t);
    ggml_backend_dev_t (*get_device)(ggml_backend_reg_t, size_t index);
    void* (*get_proc_address)(ggml_backend_reg_t, const char* name);
};

struct Registry {
    int api_version;
    RegistryInterface iface;
    void* context;
};

// Its members up to what we use; the same in both APIs.
struct Graph {
    int size, n_nodes, n_leafs;
    ggml_tensor **nodes, **grads, **grad_accs, **leafs;
    int32_t* use_counts;  // uses of each tensor, by its place in `visited`
    struct {
        size_t size;
        uint32_t* used;
        ggml_tensor** keys;
    } visited;
};

// Bytes of a tensor's entry in a context beside the tensor itself: ggml_object.
constexpr size_t kObjectBytes = 32;

}  // namespace tq::plugin::abi

// Exported by libggml-base, declared in the same internal header.
extern "C" ggml_backend_buffer_t ggml_backend_buffer_init(ggml_backend_buffer_type_t buft,
                                                          tq::plugin::abi::BufferInterface iface, void* context,
                                                          size_t size);
