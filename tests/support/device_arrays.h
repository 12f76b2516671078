// Arrays on a device, and tests that skip themselves, by name, where there is none.
#pragma once

#include <vector>

#include <gtest/gtest.h>

#include "tests/support/bytes.h"
#include "turboquant/cuda/device.h"

namespace tq::test {

inline bool has_device() {
    static const Status status = cuda::device_status();
    return status.ok();
}

template <class T>
class DeviceArray {
  public:
    explicit DeviceArray(const std::vector<T>& values)
        : n_(values.size()),
          memory_(std::move(
              cuda::DeviceMemory::copy_of(values.data(), std::max<size_t>(1, values.size()) * sizeof(T)).value())) {}
    explicit DeviceArray(size_t n, uint8_t fill = 0) : DeviceArray(filled(n, fill)) {}

    T* data() const { return memory_.template data<T>(); }
    std::vector<T> values() const {
        std::vector<T> host(n_);
        EXPECT_EQ(cudaMemcpy(host.data(), data(), n_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess)
            << cudaGetErrorString(cudaGetLastError());
        return host;
    }

  private:
    static std::vector<T> filled(size_t n, uint8_t fill) {
        std::vector<T> values(n);
        std::memset(values.data(), fill, n * sizeof(T));
        return values;
    }
    size_t n_;
    cuda::DeviceMemory memory_;
};

// A base of tests with a device.
template <class Test>
class WithDevice : public Test {
  protected:
    void SetUp() override {
        if (!has_device()) GTEST_SKIP() << cuda::device_status().message();
    }
};

}  // namespace tq::test
