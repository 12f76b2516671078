// The random rotation of TurboQuant (arXiv 2504.19874, Algorithm 1): y = R x, with R orthogonal and fast.
//
//   R = 2^-a  M S2 M S1,   M = H (x) Q,   head_dim = m * 2^a with m odd
//
// H is the unnormalized Walsh-Hadamard matrix of size 2^a on each of the m contiguous runs of the vector,
// Q = I - (2/m) J (a Householder reflection, the identity for m = 1) mixes the runs, and S1, S2 are random signs.
// M is symmetric and M M = 2^a I, so the inverse is 2^-a S1 M S2 M: two rounds need one exact power of two.
#pragma once

#include <cstdint>
#include <vector>

#include "turboquant/base/status.h"

namespace tq {

inline constexpr int kMinHeadDim = 16;
inline constexpr int kMaxHeadDim = 512;

struct Rotation {
    int head_dim = 0;
    int run = 0;                   // 2^a
    float norm = 1;                // 2^-a
    std::vector<float> signs[2];   // +1 or -1, head_dim each, of the first and the second round

    // head_dim: a multiple of 16 in 16..512. Error: kUnsupported.
    static Result<Rotation> create(int head_dim);
};

// True for a minus sign. A counter-based hash (the finalizer of MurmurHash3 on 64 bits), the same in every build and backend.
constexpr bool rotation_sign_is_negative(int head_dim, int round, int index) {
    uint64_t h = (static_cast<uint64_t>(head_dim) << 32) ^ (static_cast<uint64_t>(round) << 16) ^ static_cast<uint64_t>(index);
    h += 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    h ^= h >> 33;
    return (h & 1) != 0;
}

}  // namespace tq
