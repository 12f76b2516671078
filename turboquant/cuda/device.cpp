#include "turboquant/cuda/device.h"

#include <string>

namespace tq::cuda {

Status status_of(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return {};
    const std::string message = std::string(what) + ": " + cudaGetErrorString(error);
    if (error == cudaErrorMemoryAllocation) return Status(Error::kOutOfMemory, message);
    return Status(error == cudaErrorInvalidValue ? Error::kInvalidArgument : Error::kUnsupported, message);
}

DeviceMemory::~DeviceMemory() {
    if (data_) (void)cudaFree(data_);
}

Result<DeviceMemory> DeviceMemory::allocate(size_t bytes) {
    DeviceMemory memory;
    if (Status s = status_of(cudaMalloc(&memory.data_, bytes), "allocating device memory"); !s.ok()) return s;
    memory.size_ = bytes;
    return memory;
}

Result<DeviceMemory> DeviceMemory::copy_of(const void* host, size_t bytes) {
    Result<DeviceMemory> memory = allocate(bytes);
    if (!memory.ok()) return memory;
    const cudaError_t error = cudaMemcpy(memory->data(), host, bytes, cudaMemcpyHostToDevice);
    if (Status s = status_of(error, "copying to the device"); !s.ok()) return s;
    return memory;
}

Status device_status() {
    int device = 0, major = 0;
    if (Status s = status_of(cudaGetDevice(&device), "looking for a device"); !s.ok()) return s;
    const cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (Status s = status_of(error, "reading a device's properties"); !s.ok()) return s;
    if (major < 9) {
        return Status(Error::kUnsupported, "the device has compute capability " + std::to_string(major) +
                                               ".x; the kernels need 9.0 or newer (bulk copies)");
    }
    return {};
}

}  // namespace tq::cuda
