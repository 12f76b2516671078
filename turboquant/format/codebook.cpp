#include "turboquant/format/codebook.h"

#include <cstdlib>
#include <span>

#include "turboquant/format/coding.h"

namespace tq {
namespace {

// Positive halves of the converged Lloyd-Max codebooks, times 127 / outermost level, rounded.
// tests/codebook_test.cpp derives them again and holds their distortion against theory.
constexpr uint8_t kLevels2[] = {38, 127};
constexpr uint8_t kLevels3[] = {14, 45, 79, 127};
constexpr uint8_t kLevels4[] = {6, 18, 31, 44, 58, 75, 96, 127};
constexpr uint8_t kLevels5[] = {3, 8, 13, 18, 24, 29, 35, 41, 47, 54, 61, 70, 79, 90, 105, 127};
constexpr uint8_t kLevels6[] = {1,  3,  6,  8,  10, 13, 15, 17, 20, 22, 24, 27, 30, 32, 35,  38,
                                40, 43, 46, 49, 53, 56, 60, 64, 68, 73, 78, 84, 91, 99, 110, 127};
constexpr uint8_t kLevels7[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,  15,  16,
                                17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 30, 31, 32,  33,  34,
                                36, 37, 38, 40, 41, 42, 44, 45, 47, 48, 50, 52, 53, 55,  57,  59,
                                61, 63, 65, 67, 69, 72, 75, 78, 81, 84, 88, 93, 98, 105, 113, 127};

// The outermost Lloyd-Max level in standard deviations, for 2..7 bits; at 8 bits, where the int8 grid is the codebook,
// the load at which a group of 32-64 Gaussian values is best scaled.
constexpr float kOutermostSigma[] = {1.5104176f, 2.1519457f, 2.7325896f, 3.2607325f, 3.7441013f, 4.1896942f, 2.8f};

std::span<const uint8_t> positive_levels(int bits) {
    switch (bits) {
        case 2:
            return kLevels2;
        case 3:
            return kLevels3;
        case 4:
            return kLevels4;
        case 5:
            return kLevels5;
        case 6:
            return kLevels6;
        default:
            return kLevels7;
    }
}

void fill_lloyd_max(Codebook& book) {
    const std::span<const uint8_t> levels = positive_levels(book.bits);
    const int half = static_cast<int>(levels.size());
    for (int i = 0; i < half; ++i) {
        book.centroid[half + i] = static_cast<int8_t>(levels[i]);
        book.centroid[half - 1 - i] = static_cast<int8_t>(-levels[i]);
    }
    std::array<uint8_t, kMagnitudes> nearest{}, code{};
    int level = 0;
    for (int magnitude = 0; magnitude < kMagnitudes; ++magnitude) {
        // Ties go to the smaller level.
        while (level + 1 < half && std::abs(magnitude - levels[level + 1]) < std::abs(magnitude - levels[level]))
            ++level;
        nearest[magnitude] = levels[level];
        code[magnitude] = static_cast<uint8_t>(half + level);
    }
    book.nearest = magnitude_table(nearest);
    book.code = magnitude_table(code);
}

void fill_int8_grid(Codebook& book) {
    for (int code = 1; code < 256; ++code) book.centroid[code] = static_cast<int8_t>(code - 128);
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
