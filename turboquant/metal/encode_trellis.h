// Values of a group into trellis codes and a scale, by a SIMD group, as cpu/codec/trellis-inl.h does it: Viterbi's
// algorithm for every candidate scale, a lane for each.
#pragma once

#include "turboquant/format/scale_search.h"
#include "turboquant/format/trellis_path.h"
#include "turboquant/metal/code_levels.h"

namespace tq {

TQ_FORMAT_TABLE int kMaxChain = 64;  // values of a group

struct TrellisEncoder {
    int bits;
    // By rounded magnitude and subset: the nearest level of the subset, and its inner index, for a value that is not
    // negative.
    threadgroup char* level;
    threadgroup uchar* inner;
    threadgroup float* errors;      // [kMaxCandidates], the SIMD group's own
    threadgroup uchar* last_state;  // [kMaxCandidates]
    threadgroup uchar* from_high;   // [kMaxChain][kMaxCandidates]: a bit for each state

    float sigma_units() const { return 127.0f / kTrellisOutermostSigma[bits - kMinTrellisBits]; }

    // Four entries of the tables; ties go to the lower level (format/trellis.cpp).
    void fill(int magnitude) const {
        for (int subset = 0; subset < kTrellisSubsets; ++subset) {
            int best = 0;
            for (int i = 1; i < 1 << (bits - 1); ++i) {
                const int next = sorted_trellis_level(bits, 4 * i + subset);
                const int least = sorted_trellis_level(bits, 4 * best + subset);
                if (metal::abs(next - magnitude) < metal::abs(least - magnitude)) best = i;
            }
            level[4 * magnitude + subset] = char(sorted_trellis_level(bits, 4 * best + subset));
            inner[4 * magnitude + subset] = uchar(best);
        }
    }

    // y: n values in threadgroup memory that the whole SIMD group may read. Returns the scale's code in all lanes.
    int encode(threadgroup const float* y, int n, threadgroup uchar* codes, uint lane) const {
        float energy = 0, top = 0;
        for (int t = 0; t < n; ++t) {
            energy += y[t] * y[t];
            const float magnitude = metal::fabs(y[t]);
            top = top < magnitude ? magnitude : top;
        }
        const ScaleWindow window = scale_window(metal::precise::sqrt(energy / float(n)), top, sigma_units());
        if (int(lane) < window.count) run(y, n, energy, window.low, int(lane));
        simdgroup_barrier(metal::mem_flags::mem_threadgroup);
        const int best = window.count == 0 ? -1 : choose(y, n, window);
        if (best >= 0) {
            trace_back(y, n, best, window.low, lane == 0, codes);
        } else {
            for (int t = int(lane); t < n; t += 32) codes[t] = 0;
        }
        simdgroup_barrier(metal::mem_flags::mem_threadgroup);
        return best < 0 ? 0 : window.low + best;
    }

  private:
    static int scale_code_of(int low, int candidate) { return metal::min(low + candidate, kMaxScaleCode); }
    static float inverse_of(int low, int candidate) {
        return 1.0f / scale_from_code(uchar(scale_code_of(low, candidate)));
    }
    static int magnitude_of(float scaled) {
        return int(rounded(scaled < 127.0f ? scaled : 127.0f));
    }
    // The subset's entry of a value: what is nearest to a negative value mirrors the opposite subset's.
    static int entry_of(float value, int magnitude, int subset) {
        return 4 * magnitude + (value < 0 ? kTrellisSubsets - 1 - subset : subset);
    }
    int inner_of(float value, int magnitude, int subset) const {
        const int index = inner[entry_of(value, magnitude, subset)];
        return value < 0 ? (1 << (bits - 1)) - 1 - index : index;
    }

    // The forward pass for the lane's scale: for each state the least error of any path there, in units of the scale.
    void run(threadgroup const float* y, int n, float energy, int low, int candidate) const {
        constexpr float far = 1329227995784915872903807060280344576.0f;  // 2^120: no path has reached the state
        const float inverse = inverse_of(low, candidate), scale = scale_from_code(uchar(scale_code_of(low, candidate)));
        float cost[kTrellisStates];
#pragma unroll
        for (int s = 0; s < kTrellisStates; ++s) cost[s] = s == 0 ? 0.0f : far;  // chains begin in state 0
        for (int t = 0; t < n; ++t) {
            const float scaled = metal::fabs(y[t]) * inverse;
            const int magnitude = magnitude_of(scaled);
            float error[kTrellisSubsets], next[kTrellisStates];
#pragma unroll
            for (int i = 0; i < kTrellisSubsets; ++i) {
                const float distance = scaled - float(level[entry_of(y[t], magnitude, i)]);
                error[i] = distance * distance;
            }
            int from = 0;
#pragma unroll
            for (int s = 0; s < kTrellisStates; ++s) {  // the two states that lead here differ in their oldest bit
                const float low_cost = cost[s / 2] + error[trellis_subset(s / 2, s % 2)];
                const float high_cost = cost[s / 2 + 4] + error[trellis_subset(s / 2 + 4, s % 2)];
                const bool better = high_cost < low_cost;
                next[s] = better ? high_cost : low_cost;
                from |= better ? 1 << s : 0;
            }
#pragma unroll
            for (int s = 0; s < kTrellisStates; ++s) cost[s] = next[s];
            from_high[t * kMaxCandidates + candidate] = uchar(from);
        }
        int state = 0;
        float least = cost[0];
#pragma unroll
        for (int s = 1; s < kTrellisStates; ++s) {
            if (!(cost[s] < least)) continue;
            least = cost[s];
            state = s;
        }
        const float error = least * scale * scale, negligible = energy * kNegligibleError;
        last_state[candidate] = uchar(state);
        errors[candidate] = error < negligible ? negligible : error;
    }

    // The least error wins, of equals the smallest scale, if it is admissible; else the next. An inadmissible one only
    // where there is no other.
    int choose(threadgroup const float* y, int n, ScaleWindow window) const {
        uint left = 0xffffffffu;
        int best = -1;
        while (true) {
            int least = -1;
            float error = INFINITY;
            for (int i = 0; i < window.count; ++i) {
                if ((left >> uint(i) & 1u) == 0 || !(errors[i] < error * kClearlyLess)) continue;
                error = errors[i];
                least = i;
            }
            if (least < 0) return best;
            const bool admissible = trace_back(y, n, least, window.low, false, nullptr);
            if (admissible) return least;
            if (best < 0) best = least;
            left &= ~(1u << uint(least));
        }
    }

    // Follows a candidate's path, and writes its codes if asked to. Says whether its scale is admissible: the encoder,
    // given the decoded values, would look at it again.
    bool trace_back(threadgroup const float* y, int n, int candidate, int low, bool writes, threadgroup uchar* codes) const {
        const float inverse = inverse_of(low, candidate);
        int state = last_state[candidate], top = 0, energy = 0;
        for (int t = n - 1; t >= 0; --t) {
            const int from = from_high[t * kMaxCandidates + candidate] >> state & 1;
            const int u = state & 1, before = state >> 1 | from * (kTrellisStates / 2);
            const int subset = trellis_subset(before, u);
            const int index = inner_of(y[t], magnitude_of(metal::fabs(y[t]) * inverse), subset);
            if (writes) codes[t] = uchar(index | u << (bits - 1));
            const int of_value = sorted_trellis_level(bits, 4 * index + subset);
            top = metal::max(top, metal::abs(of_value));
            energy += of_value * of_value;
            state = before;
        }
        const float sigma_energy = sigma_units() * sigma_units() * float(n);
        return top >= kReachCentroid || float(energy) * (kWindowHigh * kWindowHigh) >= sigma_energy;
    }
};

}  // namespace tq
