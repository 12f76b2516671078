// A number that says what a record's bytes mean: caches, snapshots and plans with the same fingerprint can read each
// other's records; others must not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "turboquant/format/rotation.h"
#include "turboquant/format/row_format.h"

namespace tq {

inline constexpr uint32_t kFormatVersion = 1;  // to be raised with every change that no table or constant below shows

// FNV-1a.
class Hash {
  public:
    void add(const void* bytes, size_t n) {
        for (size_t i = 0; i < n; ++i) value_ = (value_ ^ static_cast<const uint8_t*>(bytes)[i]) * 0x100000001b3u;
    }
    template <class T>
    void add(const T& value) {
        add(&value, sizeof value);
    }
    uint64_t value() const { return value_; }

  private:
    uint64_t value_ = 0xcbf29ce484222325u;
};

// Everything that decoding depends on: version, sizes of steps, groups and blocks, the format, its levels, the scales'
// codes, and the rotations with their signs and a calibration's channel scales.
uint64_t fingerprint(const RowFormat& format, std::span<const Rotation> rotations);

}  // namespace tq
