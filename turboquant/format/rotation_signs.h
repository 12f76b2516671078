// The signs of the rotation (format/rotation.h).
#pragma once

#include "turboquant/format/portable.h"

namespace tq {

// True for a minus sign. A counter-based hash (the finalizer of MurmurHash3 on 64 bits), the same in every build and
// backend.
TQ_FORMAT_FN bool rotation_sign_is_negative(int head_dim, int round, int index) {
    uint64_t h =
        (static_cast<uint64_t>(head_dim) << 32) ^ (static_cast<uint64_t>(round) << 16) ^ static_cast<uint64_t>(index);
    h += 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    h ^= h >> 33;
    return (h & 1) != 0;
}

}  // namespace tq
