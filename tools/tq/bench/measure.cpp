#include "bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

namespace tq::tool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kLeastSample = 0.01;  // seconds; below that a clock tick of the system would show
constexpr int kLeastRounds = 3;
// Threads that have finished (OpenMP's above all) spin for some milliseconds; the next contestant must not share with
// them.
constexpr auto kRest = std::chrono::milliseconds(10);

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Seconds of one pass; several make up a sample.
double sample(Contestant& contestant, int passes) {
    std::this_thread::sleep_for(kRest);
    double seconds = 0;
    for (int i = 0; i < passes; ++i) seconds += contestant.run();
    return seconds / passes;
}

double read_rate(ReadBandwidth& read) {
    std::this_thread::sleep_for(kRest);
    return static_cast<double>(read.bytes()) / read.run() * 1e-9;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
        norm += double{b[i]} * b[i];
    }
    return std::sqrt(difference / norm);
}

void compare_outputs(const std::vector<std::unique_ptr<Contestant>>& contestants, Measurement& result) {
    const auto f16 =
        std::find_if(contestants.begin(), contestants.end(), [](const auto& c) { return c->name == "f16"; });
    if (f16 == contestants.end()) return;
    const std::vector<float> exact = (*f16)->output();
    for (size_t i = 0; i < contestants.size() && !exact.empty(); ++i) {
        result.measured[i].error = distance(contestants[i]->output(), exact);
    }
}

// One run that does not count; tells how many passes make a sample.
int warm_up(Contestant& contestant) {
    return std::clamp(static_cast<int>(std::ceil(kLeastSample / sample(contestant, 1))), 1, 1000);
}

}  // namespace

Measurement measure(const std::vector<std::unique_ptr<Contestant>>& contestants, ReadBandwidth* read, int64_t n_layer,
                    const MeasureLimits& limits) {
    Measurement result;
    for (const auto& c : contestants) {
        result.measured.push_back(
            {c->name, c->label, c->description, c->isa, c->bits, c->layer_bytes, warm_up(*c), {}, {}, {}});
    }
    const size_t n = contestants.size();
    const Clock::time_point begin = Clock::now();
    for (int round = 0; round < limits.rounds; ++round) {
        if (round >= kLeastRounds && seconds_since(begin) > limits.max_seconds) break;
        for (size_t i = 0; i < n; ++i) {
            const size_t at = (i + static_cast<size_t>(round)) % n;
            Measured& measured = result.measured[at];
            const double seconds = sample(*contestants[at], measured.passes);
            measured.us.push_back(1e6 * seconds / static_cast<double>(n_layer));
        }
        if (read) result.read_gbps.push_back(read_rate(*read));
    }
    compare_outputs(contestants, result);
    for (size_t i = 0; i < n; ++i) result.measured[i].digest = contestants[i]->digest();
    return result;
}

}  // namespace tq::tool
