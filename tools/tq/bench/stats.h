// This is what is said about repeated measurements.
#pragma once

#include <vector>

namespace tq::tool {

// Interpolates between neighbours. sorted must not be empty.
double quantile(const std::vector<double>& sorted, double q);

struct Spread {
    double min = 0, p10 = 0, median = 0, p90 = 0, max = 0;
};

// samples must not be empty.
Spread spread_of(std::vector<double> samples);

// y = intercept + slope * x by least squares. worst: the largest |y - fit| / y.
struct LinearFit {
    double intercept = 0, slope = 0, r2 = 0, worst = 0;
};
LinearFit fit_line(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace tq::tool
