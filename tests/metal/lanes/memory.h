// The memory that a dispatch may touch, and who touched it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dispatch.h"

namespace tq::lanes {

enum class Space { kDevice, kThreadgroup, kConstant };
inline constexpr int kOrderedSpaces = 2;  // those that barriers order

// Who touches memory, and when: how many barriers it has passed.
struct Moment {
    uint32_t group = 0;  // 1 + the threadgroup's number; 0: nobody
    uint16_t lane = 0;   // in the threadgroup
    bool several_lanes = false;
    bool several_simd_groups = false;
    uint16_t barriers = 0;       // of the threadgroup
    uint16_t simd_barriers = 0;  // of the SIMD group
};

// The last ones that touched each byte.
class History {
  public:
    struct Byte {
        Moment writer, reader, atomic;
    };
    explicit History(size_t bytes) : pages_((bytes + kPageBytes - 1) / kPageBytes) {}
    Byte& operator[](size_t offset) {
        auto& page = pages_[offset / kPageBytes];
        if (!page) page = std::make_unique<Byte[]>(kPageBytes);
        return page[offset % kPageBytes];
    }

  private:
    static constexpr size_t kPageBytes = 1024;
    std::vector<std::unique_ptr<Byte[]>> pages_;
};

struct Region {
    std::string name;
    Space space = Space::kConstant;
    uintptr_t begin = 0;
    size_t bytes = 0;
    bool writable = false;
    uint8_t* defined = nullptr;  // as in Buffer

    std::shared_ptr<History> history{};  // of what may be written
    size_t history_offset = 0;           // where the region starts in it

    bool has(uintptr_t address, size_t size) const {
        return address >= begin && address - begin <= bytes && size <= bytes - (address - begin);
    }
};

struct Access {
    bool reads, writes, atomic;
};

class Memory {
  public:
    void add(Region region);
    void forget_threadgroup();  // its regions go, others stay

    // What is wrong with an access.
    std::optional<Report> access(uintptr_t address, size_t size, Access access, const Moment& by);

  private:
    Region* find(uintptr_t address, size_t size);
    std::string nearest(uintptr_t address) const;

    std::vector<std::unique_ptr<Region>> regions_;
    Region* last_ = nullptr;
};

}  // namespace tq::lanes
