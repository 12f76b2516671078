// Zero-filled, so that every page is there before anything is timed; 64-byte aligned like ggml's own buffers, and in
// huge pages like the plugin's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "turboquant/base/huge_pages.h"

namespace tq::tool {

class Memory {
  public:
    Memory() = default;
    explicit Memory(size_t bytes) : data_(new (std::align_val_t{64}) uint8_t[bytes]) {
        prefer_huge_pages(data(), bytes);
        std::memset(data(), 0, bytes);
    }

    uint8_t* data() const { return data_.get(); }
    float* floats() const { return reinterpret_cast<float*>(data()); }

  private:
    struct Deleter {
        void operator()(uint8_t* p) const { ::operator delete[](p, std::align_val_t{64}); }
    };
    std::unique_ptr<uint8_t[], Deleter> data_;
};

}  // namespace tq::tool
