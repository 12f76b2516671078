// Codebooks: int8 centroids of the Lloyd-Max quantizer of a Gaussian (TurboQuant, arXiv 2504.19874, section 3.1),
// scaled so that the outermost level is 127. Levels are symmetric: code c and code 2^bits-1-c are negatives.
#pragma once

#include <array>
#include <cstdint>

#include "turboquant/format/magnitude_table.h"

namespace tq {

inline constexpr int kCentroidMax = 127;

struct Codebook {
    int bits = 0;
    // Standard deviation of unit-rms data in centroid units: value/sigma * sigma_units is what gets quantized.
    float sigma_units = 0;
    // code -> centroid; only the first 2^bits entries are used.
    std::array<int8_t, 256> centroid{};
    // Rounded magnitude |value/scale| in 0..127 -> magnitude of the nearest centroid.
    MagnitudeTable nearest{};
    // The same magnitude -> code, for values >= 0. For values < 0 it is 2^bits-1 minus that, at 8 bits 256 minus that.
    MagnitudeTable code{};
};

// bits 2..8 (kMinBits..kMaxBits). The tables are the format: they are the same in every build.
// At 8 bits the codebook is the int8 grid itself: code = 128 + value, code 0 unused.
const Codebook& codebook(int bits);

}  // namespace tq
