// The rules of the search for a group's scale (docs/codec.md, section 4): one source for CPUs and shaders.
#pragma once

#include "turboquant/format/scale.h"

namespace tq {

// The window of candidate scales around the one that gives the group's rms the codebook's sigma.
TQ_FORMAT_TABLE float kWindowLow = 0.65f;
TQ_FORMAT_TABLE float kWindowHigh = 1.4f;
// It is widened to these multiples of the scale that clips nothing. The decoded values of a scale whose largest
// centroid is >= kReachCentroid have that scale in their window: 1.1 * 110 / 127 > 15/16, the largest ratio of
// neighbours.
TQ_FORMAT_TABLE float kReachLow = 0.85f;
TQ_FORMAT_TABLE float kReachHigh = 1.1f;
TQ_FORMAT_TABLE int kReachCentroid = 110;
// A window has at most 29 codes: its ends are less than 9 times apart, as top / rms is 1 to 8 and sigma 30 to 84 units.
TQ_FORMAT_TABLE int kMaxCandidates = 32;
// The smallest wins among scales that fit equally well but for rounding.
TQ_FORMAT_TABLE float kClearlyLess = 1.0f - 1.0f / 1024.0f;
TQ_FORMAT_TABLE float kNegligibleError = 1.0f / 68719476736.0f;  // 2^-36

// The outermost Lloyd-Max level in standard deviations, for 2..7 bits; at 8 bits, where the int8 grid is the codebook,
// the load at which a group of 32-64 Gaussian values is best scaled.
TQ_FORMAT_TABLE float kOutermostSigma[] = {1.5104176f, 2.1519457f, 2.7325896f, 3.2607325f,
                                           3.7441013f, 4.1896942f, 2.8f};

// The same of trellis codes, 3..5 bits.
TQ_FORMAT_TABLE float kTrellisOutermostSigma[] = {2.494759f, 3.142176f, 3.407154f};

// What counts as 0 in a row, and the largest magnitude: less than half the smallest half, so a saved row has it as 0,
// too. Sums of what is left are never denormal, and the bytes do not depend on whether a thread flushes such numbers.
TQ_FORMAT_TABLE float kNegligible = 1.0f / 4294967296.0f;  // 2^-32
TQ_FORMAT_TABLE float kLargestHalf = 65504.0f;

// Candidates: the codes low, low + 1, ...
struct ScaleWindow {
    int low;  // 0: all values are 0 or nearly so, and there are no candidates
    int count;
};

// rms: of the group's values; top: their largest magnitude.
TQ_FORMAT_FN ScaleWindow scale_window(float rms, float top, float sigma_units) {
    const float unit = rms / sigma_units, reach = top / 127.0f;  // reach: the scale at which no value is clipped
    if (reach <= scale_from_code(1) / 2) return {0, 0};            // nearer to 0 than to any other scale
    const float least = kWindowLow * unit, clipping = kReachLow * reach, most = kWindowHigh * unit,
                reaching = kReachHigh * reach;
    const int floor = scale_code_floor(clipping < least ? clipping : least), low = floor < 1 ? 1 : floor;
    const int count = scale_code_ceil(most < reaching ? reaching : most) - low + 1;
    return {low, count < kMaxCandidates ? count : kMaxCandidates};
}

}  // namespace tq
