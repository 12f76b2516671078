#include "turboquant/format/trellis.h"

#include <cstdlib>

#include "turboquant/format/levels.h"
#include "turboquant/format/scale_search.h"

namespace tq {
namespace {

// What is nearest to a negative value in a subset mirrors what is nearest to its magnitude in the opposite one.
void fill_nearest(TrellisBook& book, int magnitude, int subset) {
    const int last = (1 << (book.bits - 1)) - 1, opposite = kTrellisSubsets - 1 - subset;
    int best = 0;
    for (int i = 1; i <= last; ++i) {  // ties go to the lower level
        if (std::abs(book.level_at(subset, i) - magnitude) < std::abs(book.level_at(subset, best) - magnitude))
            best = i;
    }
    TrellisBook::Nearest& positive = book.nearest[0][static_cast<size_t>(magnitude)];
    TrellisBook::Nearest& negative = book.nearest[1][static_cast<size_t>(magnitude)];
    positive.inner[static_cast<size_t>(subset)] = static_cast<uint8_t>(best);
    negative.inner[static_cast<size_t>(opposite)] = static_cast<uint8_t>(last - best);
    positive.level[static_cast<size_t>(subset)] = static_cast<float>(book.level_at(subset, best));
    negative.level[static_cast<size_t>(opposite)] = static_cast<float>(book.level_at(subset, best));
}

TrellisBook make_book(int bits) {
    TrellisBook book;
    book.bits = bits;
    book.sigma_units = 127.0f / kTrellisOutermostSigma[bits - kMinTrellisBits];
    for (int i = 0; i < 2 << bits; ++i) {
        const int subset = i % kTrellisSubsets, inner = i / kTrellisSubsets;
        const int index = inner | (subset >> 1) << (bits - 1) | (subset & 1) << bits;
        book.level[static_cast<size_t>(index)] = static_cast<int8_t>(sorted_trellis_level(bits, i));
    }
    for (int magnitude = 0; magnitude < 128; ++magnitude) {
        for (int subset = 0; subset < kTrellisSubsets; ++subset) fill_nearest(book, magnitude, subset);
    }
    return book;
}

}  // namespace

int follow_trellis(const TrellisBook& book, int state, const uint8_t* codes, int8_t* levels) {
    for (int dim = 0; dim < kStepDims; ++dim) {
        const int path_bit = codes[dim] >> (book.bits - 1);
        const int inner = codes[dim] & ((1 << (book.bits - 1)) - 1);
        levels[dim] = static_cast<int8_t>(book.level_at(trellis_subset(state, path_bit), inner));
        state = next_trellis_state(state, path_bit);
    }
    return state;
}

const TrellisBook& trellis_book(int bits) {
    static const std::array<TrellisBook, kMaxTrellisBits - kMinTrellisBits + 1> books = [] {
        std::array<TrellisBook, kMaxTrellisBits - kMinTrellisBits + 1> made;
        for (int b = kMinTrellisBits; b <= kMaxTrellisBits; ++b)
            made[static_cast<size_t>(b - kMinTrellisBits)] = make_book(b);
        return made;
    }();
    return books[static_cast<size_t>(bits - kMinTrellisBits)];
}

}  // namespace tq
