#include "turboquant/format/codebook.h"

#include <cstdlib>

#include "turboquant/format/levels.h"
#include "turboquant/format/scale_search.h"

namespace tq {
namespace {

void fill_lloyd_max(Codebook& book) {
    const int half = 1 << (book.bits - 1);
    const auto level_of = [&](int i) { return positive_level(book.bits, i); };
    for (int code = 0; code < 2 * half; ++code)
        book.centroid[code] = static_cast<int8_t>(scalar_level(book.bits, code));
    std::array<uint8_t, kMagnitudes> nearest{}, code{};
    int level = 0;
    for (int magnitude = 0; magnitude < kMagnitudes; ++magnitude) {
        // Ties go to the smaller level.
        while (level + 1 < half && std::abs(magnitude - level_of(level + 1)) < std::abs(magnitude - level_of(level)))
            ++level;
        nearest[magnitude] = static_cast<uint8_t>(level_of(level));
        code[magnitude] = static_cast<uint8_t>(half + level);
    }
    book.nearest = magnitude_table(nearest);
    book.code = magnitude_table(code);
}

void fill_int8_grid(Codebook& book) {
    for (int code = 1; code < 256; ++code) book.centroid[code] = static_cast<int8_t>(scalar_level(kMaxBits, code));
    std::array<uint8_t, kMagnitudes> nearest{}, code{};
    for (int magnitude = 0; magnitude < kMagnitudes; ++magnitude) {
        nearest[magnitude] = static_cast<uint8_t>(magnitude);
        code[magnitude] = static_cast<uint8_t>(128 + magnitude);
    }
    book.nearest = magnitude_table(nearest);
    book.code = magnitude_table(code);
}

Codebook make_codebook(int bits) {
    Codebook book;
    book.bits = bits;
    book.sigma_units = kCentroidMax / kOutermostSigma[bits - kMinBits];
    if (bits == kMaxBits) {
        fill_int8_grid(book);
    } else {
        fill_lloyd_max(book);
    }
    return book;
}

}  // namespace

const Codebook& codebook(int bits) {
    static const std::array<Codebook, kMaxBits - kMinBits + 1> books = [] {
        std::array<Codebook, kMaxBits - kMinBits + 1> made;
        for (int b = kMinBits; b <= kMaxBits; ++b) made[b - kMinBits] = make_codebook(b);
        return made;
    }();
    return books[bits - kMinBits];
}

}  // namespace tq
