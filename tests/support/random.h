// Pseudo-random numbers that are the same on every platform, unlike the distributions of <random>.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

namespace tq::test {

class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}

    // SplitMix64.
    uint64_t next() {
        uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }

    // 0..n-1
    int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }

    // [0, 1), exact.
    double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

    // Standard normal (Box-Muller); depends on libm in the last bits.
    double normal() {
        const double radius = std::sqrt(-2 * std::log(1 - uniform()));
        return radius * std::cos(2 * std::numbers::pi * uniform());
    }

    // Bell-shaped with unit variance, exact in float: for golden values.
    float bell() {
        int sum = 0;
        for (int i = 0; i < 3; ++i) sum += static_cast<int>(next() >> 54);
        return static_cast<float>(sum - 1535) / 512.0f;
    }

    std::vector<float> normals(int64_t n, double sigma = 1) {
        std::vector<float> values(n);
        for (float& x : values) x = static_cast<float>(sigma * normal());
        return values;
    }

  private:
    uint64_t state_;
};

template <class T>
void shuffle(std::vector<T>& items, Random& random) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[random.below(static_cast<int64_t>(i))]);
}

}  // namespace tq::test
