// Trellis-coded quantization (Marcellin and Fischer, IEEE Trans. Communications 38, 1990; Ungerboeck's 8-state code).
//
// b bits a value choose among 2^(b+1) levels, a codebook of one bit more, of which each value may use half. Levels are
// dealt to four subsets in turn: level i of the sorted ones belongs to subset i % 4. A code is
//
//     inner index (b - 1 bits, low) | path bit u (high)
//
// and with u1, u2, u3 the path bits of the one, two and three values before, value t has the level
//
//     level 4 * inner + 2 * w + s,    w = u ^ u1 ^ u3,    s = u2
//
// Where there are no values before, their path bits are 0. The values of a group are a chain; chains are independent,
// and decoding looks at four codes only, never further back.
#pragma once

#include <array>
#include <cstdint>

#include "turboquant/base/inline.h"
#include "turboquant/format/coding.h"
#include "turboquant/format/trellis_path.h"

namespace tq {

struct TrellisBook {
    int bits = 0;
    // It means what it means in Codebook: value / sigma * sigma_units is what gets quantized.
    float sigma_units = 0;
    // The index is inner | w << (bits - 1) | s << bits.
    std::array<int8_t, 2 << kMaxTrellisBits> level{};
    // Sign (1: negative), rounded magnitude and subset give the inner index of the subset's nearest level, and that
    // level with the sign taken off.
    struct Nearest {
        alignas(16) std::array<float, kTrellisSubsets> level;
        std::array<uint8_t, kTrellisSubsets> inner;
    };
    std::array<std::array<Nearest, 128>, 2> nearest{};

    TQ_INLINE int level_at(int subset, int inner_index) const {
        return elements(level)[inner_index | (subset >> 1) << (bits - 1) | (subset & 1) << bits];
    }
};

// The levels of a step's 16 codes after the codes that led to `state`. Returns the state behind it.
int follow_trellis(const TrellisBook& book, int state, const uint8_t* codes, int8_t* levels);

// bits 3..5. The tables are the format: the same in every build.
const TrellisBook& trellis_book(int bits);

}  // namespace tq
