// Comparing memory bit by bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

namespace tq::test {

using Bytes = std::vector<uint8_t>;

// FNV-1a, 64 bits.
inline uint64_t fnv1a(const void* data, size_t size) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; ++i) hash = (hash ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3u;
    return hash;
}

// Equal bits: NaNs compare by payload, and 0 differs from -0.
inline testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size()) return testing::AssertionFailure() << a.size() << " values and " << b.size();
    for (size_t i = 0; i < a.size(); ++i) {
        if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
            return testing::AssertionFailure() << "value " << i << " is " << a[i] << " and " << b[i];
        }
    }
    return testing::AssertionSuccess();
}

}  // namespace tq::test
