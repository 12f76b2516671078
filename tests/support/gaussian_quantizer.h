// Theory: symmetric scalar quantizers of a standard normal variable, in closed form.
#pragma once

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

namespace tq::test {

inline double normal_density(double x) {
    return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
}

// P(X > x)
inline double normal_tail(double x) {
    return std::erfc(x / std::numbers::sqrt2) / 2;
}

// The positive half of a symmetric quantizer: level i serves [border[i], border[i+1]); border 0 is 0, the last
// infinity.
struct GaussianQuantizer {
    std::vector<double> levels;
    std::vector<double> borders;

    double mass(size_t i) const { return normal_tail(borders[i]) - normal_tail(borders[i + 1]); }
    double first_moment(size_t i) const { return normal_density(borders[i]) - normal_density(borders[i + 1]); }
    double second_moment(size_t i) const { return mass(i) + edge(borders[i]) - edge(borders[i + 1]); }

    // E (X - Q(X))^2
    double distortion() const {
        double sum = 0;
        for (size_t i = 0; i < levels.size(); ++i) {
            sum += second_moment(i) - 2 * levels[i] * first_moment(i) + levels[i] * levels[i] * mass(i);
        }
        return 2 * sum;
    }

  private:
    static double edge(double x) { return std::isinf(x) ? 0 : x * normal_density(x); }
};

inline std::vector<double> midpoints(const std::vector<double>& levels) {
    std::vector<double> borders{0};
    for (size_t i = 1; i < levels.size(); ++i) borders.push_back((levels[i - 1] + levels[i]) / 2);
    borders.push_back(std::numeric_limits<double>::infinity());
    return borders;
}

// Lloyd's iteration to its fixed point: borders halfway between levels, levels the means between borders.
inline GaussianQuantizer lloyd_max(int bits) {
    GaussianQuantizer q;
    const int half = 1 << (bits - 1);
    for (int i = 0; i < half; ++i) q.levels.push_back(4.0 * (i + 0.5) / half);
    for (double moved = 1; moved > 1e-11;) {
        q.borders = midpoints(q.levels);
        moved = 0;
        for (int i = 0; i < half; ++i) {
            const double mean = q.first_moment(i) / q.mass(i);
            moved = std::max(moved, std::abs(mean - q.levels[i]));
            q.levels[i] = mean;
        }
    }
    return q;
}

// Theory gives this for the optimal quantizer (Max 1960), 2..7 bits.
inline double lloyd_max_distortion(int bits) {
    constexpr double kTable[] = {0.11748, 0.03455, 0.00950, 0.00250, 0.000644, 0.000163};
    return kTable[bits - 2];
}

}  // namespace tq::test
