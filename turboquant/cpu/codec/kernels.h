// The codec's inner loops, compiled once per ISA from encode-inl.h. Every ISA gives the same bits.
#pragma once

#include <cstdint>

#include "turboquant/base/isa.h"
#include "turboquant/format/codebook.h"
#include "turboquant/format/rotation.h"
#include "turboquant/format/trellis.h"

namespace tq {

inline constexpr int kMaxGroupedValues = kMaxHeadDim + 64;  // a head, and what the one before left of a group
inline constexpr int kMaxGroups = kMaxGroupedValues / 32;

struct CodecKernels {
    // head_dim floats; in and out may be the same. Of a row of keys or values: y = R D x, of any x: NaN and what is
    // below 2^-32 count as 0, what is beyond +-65504 (the largest half) as that. Of a query: y = R D^-1 x. The inverse
    // of the first: x = D^-1 R^T y.
    void (*rotate_row)(const Rotation& rotation, const float* in, float* out);
    void (*rotate_query)(const Rotation& rotation, const float* in, float* out);
    void (*rotate_inverse)(const Rotation& rotation, const float* in, float* out);

    // Quantizes n finite rotated values (a multiple of 16, at most kMaxGroupedValues): n codes, one byte each, and a
    // scale's code for each group of `width` (32 or 64) values. The last group may be narrower.
    // Among the candidate scales near the group's rms the one with the least squared error wins, the smallest on ties.
    // unbiased: stores |y|^2 / <y, c> instead, so that inner products with y are unbiased (used for keys at 2 bits).
    void (*encode_groups)(const Codebook& book, const float* y, int n, int width, bool unbiased, uint8_t* codes,
                          uint8_t* scales);
    // The same to trellis codes: each group is a chain of its own (format/trellis.h).
    void (*encode_trellis)(const TrellisBook& book, const float* y, int n, int width, uint8_t* codes, uint8_t* scales);
};

const CodecKernels& codec_kernels(Isa isa);

}  // namespace tq
