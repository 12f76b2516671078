// The levels of all codes: the positive halves of symmetric codebooks, in units of 1/127 of the outermost level. They
// are the format: the same in every build and engine.
#pragma once

#include "turboquant/format/coding.h"

namespace tq {

// Converged Lloyd-Max codebooks of a Gaussian. tests/codebook_test.cpp derives them again and holds their distortion
// against theory. At 8 bits the int8 grid is the codebook.
TQ_FORMAT_TABLE uint8_t kLevels2[] = {38, 127};
TQ_FORMAT_TABLE uint8_t kLevels3[] = {14, 45, 79, 127};
TQ_FORMAT_TABLE uint8_t kLevels4[] = {6, 18, 31, 44, 58, 75, 96, 127};
TQ_FORMAT_TABLE uint8_t kLevels5[] = {3, 8, 13, 18, 24, 29, 35, 41, 47, 54, 61, 70, 79, 90, 105, 127};
TQ_FORMAT_TABLE uint8_t kLevels6[] = {1,  3,  6,  8,  10, 13, 15, 17, 20, 22, 24, 27, 30, 32, 35,  38,
                                      40, 43, 46, 49, 53, 56, 60, 64, 68, 73, 78, 84, 91, 99, 110, 127};
TQ_FORMAT_TABLE uint8_t kLevels7[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,  15,  16,
                                      17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 30, 31, 32,  33,  34,
                                      36, 37, 38, 40, 41, 42, 44, 45, 47, 48, 50, 52, 53, 55,  57,  59,
                                      61, 63, 65, 67, 69, 72, 75, 78, 81, 84, 88, 93, 98, 105, 113, 127};

// Trained on Gaussian chains of 48, each level the mean of what was quantized to it, until they stayed.
// tests/trellis_test.cpp holds their distortion against theory.
TQ_FORMAT_TABLE uint8_t kTrellisLevels3[] = {5, 16, 28, 40, 54, 70, 93, 127};
TQ_FORMAT_TABLE uint8_t kTrellisLevels4[] = {2, 7, 12, 16, 21, 26, 32, 37, 43, 50, 57, 65, 75, 87, 103, 127};
TQ_FORMAT_TABLE uint8_t kTrellisLevels5[] = {1,  2,  4,  6,  8,  9,  11, 12, 15, 16, 18, 20, 22, 24, 26,  29,
                                             31, 34, 37, 40, 43, 47, 51, 55, 60, 65, 71, 77, 85, 95, 107, 127};

// The i'th of the positive levels, from the smallest on: 2^(bits - 1) of scalar codes of 2 to 7 bits.
TQ_FORMAT_FN int positive_level(int bits, int i) {
    return bits == 2   ? kLevels2[i]
           : bits == 3 ? kLevels3[i]
           : bits == 4 ? kLevels4[i]
           : bits == 5 ? kLevels5[i]
           : bits == 6 ? kLevels6[i]
                       : kLevels7[i];
}

// 2^bits of trellis codes of 3 to 5 bits.
TQ_FORMAT_FN int positive_trellis_level(int bits, int i) {
    return bits == 3 ? kTrellisLevels3[i] : bits == 4 ? kTrellisLevels4[i] : kTrellisLevels5[i];
}

// The level of a scalar code: code c and code 2^bits - 1 - c are negatives; at 8 bits it is c - 128, code 0 unused.
TQ_FORMAT_FN int scalar_level(int bits, int code) {
    if (bits == kMaxBits) return code == 0 ? 0 : code - 128;
    const int n_positive = 1 << (bits - 1);
    return code < n_positive ? -positive_level(bits, n_positive - 1 - code) : positive_level(bits, code - n_positive);
}

// The i'th of all 2^(bits + 1) levels of trellis codes, from the lowest on.
TQ_FORMAT_FN int sorted_trellis_level(int bits, int i) {
    const int n_positive = 1 << bits;
    return i < n_positive ? -positive_trellis_level(bits, n_positive - 1 - i)
                          : positive_trellis_level(bits, i - n_positive);
}

}  // namespace tq
