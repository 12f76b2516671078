// Vector arithmetic in double.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace tq::test {

inline double dot(std::span<const float> a, std::span<const float> b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
    return sum;
}

inline double norm(std::span<const float> a) {
    return std::sqrt(dot(a, a));
}

inline double squared_distance(std::span<const float> a, std::span<const float> b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i)
        sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    return sum;
}

inline double distance(std::span<const float> a, std::span<const float> b) {
    return std::sqrt(squared_distance(a, b));
}

}  // namespace tq::test
