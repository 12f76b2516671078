// What the host does with a device: memory that is given back, and the driver's errors as Status.
#pragma once

#include <cstddef>
#include <utility>

#include <cuda_runtime_api.h>

#include "turboquant/base/status.h"

namespace tq::cuda {

// `what` says what was tried, as in "reading a device's properties".
Status status_of(cudaError_t error, const char* what);

// Memory of the device that was current when it was made.
class DeviceMemory {
  public:
    DeviceMemory() = default;
    DeviceMemory(DeviceMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
    DeviceMemory& operator=(DeviceMemory&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~DeviceMemory();

    // Error: kOutOfMemory.
    static Result<DeviceMemory> allocate(size_t bytes);
    // The same with a copy of the host's bytes.
    static Result<DeviceMemory> copy_of(const void* host, size_t bytes);

    template <class T = void>
    T* data() const {
        return static_cast<T*>(data_);
    }
    size_t size() const { return size_; }

  private:
    void* data_ = nullptr;
    size_t size_ = 0;
};

// Whether there is a device that the kernels of this build run on, or why there is none.
Status device_status();

}  // namespace tq::cuda
