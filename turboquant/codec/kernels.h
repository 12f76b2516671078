// The codec's inner loops, compiled once per ISA from encode-inl.h. Every ISA gives the same bits.
#pragma once

#include <cstdint>

#include "turboquant/base/isa.h"
#include "turboquant/codec/codebook.h"
#include "turboquant/codec/rotation.h"

namespace tq {

struct CodecKernels {
    // y = R x and x = R^T y, head_dim floats; in and out may be the same.
    void (*rotate)(const Rotation& rotation, const float* in, float* out);
    void (*rotate_inverse)(const Rotation& rotation, const float* in, float* out);

    // Finite copies of n values (n a multiple of 16): NaN -> 0, beyond +-65504 (the largest half) -> clamped.
    void (*sanitize)(const float* in, float* out, int n);

    // Quantizes the n (16, 32, 48 or 64) rotated values of one group: n codes, one byte each, and returns the scale's code.
    // Among the candidate scales near the group's rms the one with the least squared error wins, the smallest on ties.
    // unbiased: stores |y|^2 / <y, c> instead, so that inner products with y are unbiased (used for keys at 2 bits).
    uint8_t (*encode_group)(const Codebook& book, bool unbiased, const float* y, int n, uint8_t* codes);
};

const CodecKernels& codec_kernels(Isa isa);

}  // namespace tq
