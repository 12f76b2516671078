#include "bench/stats.h"

#include <algorithm>
#include <cmath>

namespace tq::tool {
namespace {

double mean(const std::vector<double>& values) {
    double sum = 0;
    for (double value : values) sum += value;
    return sum / static_cast<double>(values.size());
}

}  // namespace

double quantile(const std::vector<double>& sorted, double q) {
    const double at = q * static_cast<double>(sorted.size() - 1);
    const size_t low = static_cast<size_t>(at), high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

Spread spread_of(std::vector<double> samples) {
    std::sort(samples.begin(), samples.end());
    return {samples.front(), quantile(samples, 0.1), quantile(samples, 0.5), quantile(samples, 0.9), samples.back()};
}

LinearFit fit_line(const std::vector<double>& x, const std::vector<double>& y) {
    const double mean_x = mean(x), mean_y = mean(y);
    double xx = 0, xy = 0, yy = 0, residual = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        xx += (x[i] - mean_x) * (x[i] - mean_x);
        xy += (x[i] - mean_x) * (y[i] - mean_y);
        yy += (y[i] - mean_y) * (y[i] - mean_y);
    }
    LinearFit fit;
    fit.slope = xy / xx;
    fit.intercept = mean_y - fit.slope * mean_x;
    for (size_t i = 0; i < x.size(); ++i) {
        const double off = y[i] - fit.intercept - fit.slope * x[i];
        residual += off * off;
        fit.worst = std::max(fit.worst, std::abs(off) / y[i]);
    }
    fit.r2 = 1 - residual / yy;
    return fit;
}

}  // namespace tq::tool
