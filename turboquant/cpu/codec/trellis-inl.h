// Encoding to trellis codes: Viterbi's algorithm for every candidate scale, several of them side by side, the eight
// states of each in one vector. The vector types are GCC's and Clang's, which exist for every ISA; it is compiled per
// ISA, with the same bits.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "turboquant/cpu/codec/encode-inl.h"
#include "turboquant/format/trellis.h"

namespace tq::codec_impl {

inline constexpr int kMaxChain = 64;  // values of a group
inline constexpr int kTogether = 4;   // candidates, to have something to do while one's sums are under way

// A template, so that the code for one ISA is never taken for another's.
template <class Ops>
class TrellisEncoder {
  public:
    explicit TrellisEncoder(const TrellisBook& book) : book_(book) {}

    // n values, a multiple of 16, at most kMaxChain; a code for each. Returns the code of the scale.
    uint8_t encode(const float* y, int n, uint8_t* codes) {
        n_ = n;
        std::memcpy(chain_, y, sizeof(float) * static_cast<size_t>(n));
        const ScaleWindow window = make_window();
        for (int i = 0; i < window.count; i += kTogether) run(window.low + i, i);
        const Candidate best = choose(window);
        if (best.scale_code == 0)
            std::memset(codes, 0, static_cast<size_t>(n));
        else
            std::memcpy(codes, best.codes, static_cast<size_t>(n));
        return static_cast<uint8_t>(best.scale_code);
    }

  private:
    using Four =
        float __attribute__((vector_size(16)));  // a float for each subset, or for each of kTogether candidates
    using Eight = float __attribute__((vector_size(32)));  // a float for each state
    using EightInts = int32_t __attribute__((vector_size(32)));
    using FourInts = int32_t __attribute__((vector_size(16)));

    struct Candidate {
        int scale_code = 0;
        bool admissible = false;
        uint8_t codes[kMaxChain];
    };

    // Makes the window as it is made for scalar codes.
    ScaleWindow make_window() {
        energy_ = 0;
        float top = 0;
        for (int i = 0; i < n_; ++i) {
            energy_ += chain_[i] * chain_[i];
            top = larger(top, __builtin_fabsf(chain_[i]));
        }
        return scale_window(__builtin_sqrtf(energy_ / static_cast<float>(n_)), top, book_.sigma_units);
    }

    const TrellisBook::Nearest& nearest(int t, int rounded) const {
        return elements(elements(book_.nearest)[chain_[t] < 0])[rounded];
    }

    // The forward pass for the scales low, low + 1, ..., candidates first, first + 1, ...: for each state the least
    // error of any path there, in units of the scale.
    void run(int low, int first) {
        Eight cost[kTogether];
        for (Eight& c : cost) c = Eight{0, kFar, kFar, kFar, kFar, kFar, kFar, kFar};  // chains begin in state 0
        Four inverse;
        std::memcpy(&inverse, kScales.inverse + low, sizeof inverse);
        for (int t = 0; t < n_; ++t) {
            const Four scaled = __builtin_fabsf(chain_[t]) * inverse;
            const FourInts rounded = round(scaled);
            for (int c = 0; c < kTogether; ++c)
                advance(scaled[c], nearest(t, rounded[c]), cost[c], from_high_[t][first + c]);
        }
        for (int c = 0; c < kTogether; ++c) finish(cost[c], low + c, first + c);
    }

    static TQ_INLINE FourInts round(const Four& scaled) {
        constexpr float round_to_even = 0x1.8p23f;
        const Four clipped = scaled < float{kCentroidMax} ? scaled : Four{} + float{kCentroidMax};
        return __builtin_convertvector((clipped + round_to_even) - round_to_even, FourInts);
    }

    // One value. The two states that lead to a state differ in their oldest path bit; from_high: which one it was.
    static TQ_INLINE void advance(float scaled, const TrellisBook::Nearest& nearest, Eight& cost,
                                  EightInts& from_high) {
        Four level;
        std::memcpy(&level, elements(nearest.level), sizeof level);
        const Four distance = scaled - level, error = distance * distance;
        Eight low = __builtin_shufflevector(cost, cost, 0, 0, 1, 1, 2, 2, 3, 3);
        Eight high = __builtin_shufflevector(cost, cost, 4, 4, 5, 5, 6, 6, 7, 7);
        add_branch_errors<0>(error, low);
        add_branch_errors<kTrellisStates / 2>(error, high);
        const auto better = high < low;
        cost = better ? high : low;
        from_high = better;
    }

    // Adds to each state's cost the error of its subset on the way from the state with this oldest bit.
    template <int oldest>
    static TQ_INLINE void add_branch_errors(const Four& error, Eight& cost) {
        [&]<int... s>(std::integer_sequence<int, s...>) TQ_LAMBDA {
            cost += __builtin_shufflevector(error, error, trellis_subset(s / 2 + oldest, s % 2)...);
        }
        (std::make_integer_sequence<int, kTrellisStates>());
    }

    void finish(const Eight& cost, int scale_code, int candidate) {
        int state = 0;
        for (int s = 1; s < kTrellisStates; ++s) state = cost[s] < cost[state] ? s : state;
        const float scale = kScales.scale[scale_code];
        last_state_[candidate] = state;
        error_[candidate] = larger(cost[state] * scale * scale, energy_ * kNegligibleError);
    }

    // The least error wins, of equals the smallest scale, if it is admissible; else the next. An inadmissible one only
    // where there is no other.
    Candidate choose(const ScaleWindow& window) {
        Candidate best;
        while (!best.admissible) {
            int least = -1;
            float error = INFINITY;
            for (int i = 0; i < window.count; ++i) {
                if (error_[i] < error * kClearlyLess) error = error_[least = i];
            }
            if (least < 0) break;
            Candidate candidate;
            trace_back(least, window.low + least, candidate);
            if (candidate.admissible || best.scale_code == 0) best = candidate;
            error_[least] = INFINITY;
        }
        return best;
    }

    // The codes of a candidate's path, and whether its scale is admissible (see encode-inl.h).
    void trace_back(int index, int scale_code, Candidate& candidate) const {
        int state = last_state_[index], top = 0, energy = 0;
        const Four inverse = Four{} + kScales.inverse[scale_code];
        candidate.scale_code = scale_code;
        for (int t = n_ - 1; t >= 0; --t) {
            const int u = state & 1, before = state >> 1 | (from_high_[t][index][state] ? kTrellisStates / 2 : 0);
            const int subset = trellis_subset(before, u);
            const auto& inner_of = nearest(t, round(__builtin_fabsf(chain_[t]) * inverse)[0]).inner;
            const int inner = elements(inner_of)[subset];
            candidate.codes[t] = static_cast<uint8_t>(inner | u << (book_.bits - 1));
            const int level = book_.level_at(subset, inner);
            top = larger(top, __builtin_abs(level));
            energy += level * level;
            state = before;
        }
        const float sigma_energy = book_.sigma_units * book_.sigma_units * static_cast<float>(n_);
        candidate.admissible =
            top >= kReachCentroid || static_cast<float>(energy) * (kWindowHigh * kWindowHigh) >= sigma_energy;
    }

    static constexpr float kFar = 0x1p120f;  // the cost of a state that no path has reached

    const TrellisBook& book_;
    int n_ = 0;
    float energy_ = 0;
    float chain_[kMaxChain];
    EightInts from_high_[kMaxChain][kMaxCandidates];
    int last_state_[kMaxCandidates];
    float error_[kMaxCandidates];
};

template <class Ops>
void encode_trellis(const TrellisBook& book, const float* y, int n, int width, uint8_t* codes, uint8_t* scales) {
    TrellisEncoder<Ops> encoder(book);
    for (int i = 0; i < n; i += width) *scales++ = encoder.encode(y + i, smaller(width, n - i), codes + i);
}

}  // namespace tq::codec_impl
