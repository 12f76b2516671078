// The random rotation of TurboQuant (arXiv 2504.19874, Algorithm 1): y = R x, with R orthogonal and fast.
//
//   R = 2^-a  M S2 M S1,   M = H (x) Q,   head_dim = m * 2^a with m odd
//
// H is the unnormalized Walsh-Hadamard matrix of size 2^a on each of the m contiguous runs of the vector,
// Q = I - (2/m) J (a Householder reflection, the identity for m = 1) mixes the runs, and S1, S2 are random signs.
// M is symmetric and M M = 2^a I, so the inverse is 2^-a S1 M S2 M: two rounds need one exact power of two.
//
// Before it, each channel may have a scale of its own, from a calibration: y = R D x, D diagonal. Attention stays
// exact, as queries get the inverse, (R D^-1 q) . (R D k) = q . k, and so do sums of values, D^-1 R^T (sum of p R D v)
// = sum of p v. Only what the codec's error costs changes. D and D^-1 are multiplied into S1 beforehand: they cost
// nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "turboquant/base/status.h"
#include "turboquant/format/rotation_signs.h"

namespace tq {

inline constexpr int kMinHeadDim = 16;
inline constexpr int kMaxHeadDim = 512;
inline constexpr float kMinChannelScale = 1.0f / 64, kMaxChannelScale = 64;

struct Rotation {
    int head_dim = 0;
    int run = 0;     // 2^a
    float norm = 1;  // 2^-a
    // Diagonals, head_dim each.
    std::vector<float> first;          // S1 D
    std::vector<float> first_inverse;  // S1 D^-1, the same without scales
    std::vector<float> second;         // S2

    // head_dim: a multiple of 16 in 16..512. channel_scales: D, head_dim of them in [kMinChannelScale,
    // kMaxChannelScale], or none for ones. Errors: kUnsupported (head_dim), kInvalidArgument (scales).
    static Result<Rotation> create(int head_dim, std::span<const float> channel_scales = {});

    // Kernels read these, since they call no inline function of the standard library (base/inline.h).
    struct Diagonals {
        const float *first, *first_inverse, *second;
    };
    Diagonals diagonals() const;
};

}  // namespace tq
