// Groups encoded by the kernels against the search as docs/codec.md, section 4, describes it: every candidate in turn.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/random.h"
#include "turboquant/cpu/codec/kernels.h"
#include "turboquant/format/preset.h"
#include "turboquant/format/scale.h"

namespace tq::test {
namespace {

using Values = std::vector<float>;

struct Encoded {
    int scale = 0;
    std::vector<uint8_t> codes;
    bool operator==(const Encoded&) const = default;
};

// The kernels' order of addition: 16 sums of every 16th term, then lanes 8, 4, 2 and 1 apart.
template <class Term>
float sum(const Values& y, Term add) {
    std::array<float, 16> lane{};
    for (size_t i = 0; i < y.size(); ++i) lane[i % 16] = add(y[i], lane[i % 16]);
    for (int h = 8; h > 0; h /= 2)
        for (int i = 0; i < h; ++i) lane[i] += lane[i + h];
    return lane[0];
}

int magnitude(float value, float scale) {
    return static_cast<int>(std::nearbyint(std::min(std::fabs(value) * (1.0f / scale), 127.0f)));
}

float centroid(const Codebook& book, float value, float scale) {
    return book.nearest.byte[magnitude(value, scale)];
}

bool is_admissible(const Codebook& book, const Values& y, float top, float scale) {
    const float energy = sum(y, [&](float v, float s) {
        const float c = centroid(book, v, scale);
        return std::fma(c, c, s);
    });
    const float sigma_energy = book.sigma_units * book.sigma_units * static_cast<float>(y.size());
    return energy * (1.4f * 1.4f) >= sigma_energy || centroid(book, top, scale) >= 110;
}

int search(const Codebook& book, const Values& y, float energy, float top) {
    const float unit = std::sqrt(energy / static_cast<float>(y.size())) / book.sigma_units, reach = top / 127;
    const int low = std::max(1, scale_code_floor(std::min(0.65f * unit, 0.85f * reach)));
    const int high = scale_code_ceil(std::max(1.4f * unit, 1.1f * reach));
    int best = low;
    float least = INFINITY;
    for (int code = low; code <= high; ++code) {
        const float scale = scale_from_code(static_cast<uint8_t>(code));
        const float squared = sum(y, [&](float v, float s) {
            const float error = std::fabs(v) * (1.0f / scale) - centroid(book, v, scale);
            return std::fma(error, error, s);
        });
        const float error = std::max(squared * scale * scale, energy * 0x1p-36f);
        if (error < least * (1 - 0x1p-10f) && is_admissible(book, y, top, scale)) {
            least = error;
            best = code;
        }
    }
    return best;
}

Encoded encode_plainly(const Codebook& book, const Values& y, bool unbiased) {
    Encoded encoded{0, std::vector<uint8_t>(y.size())};
    const float energy = sum(y, [](float v, float s) { return std::fma(v, v, s); });
    float top = 0;
    for (float v : y) top = std::max(top, std::fabs(v));
    if (scale_code_nearest(top / 127) == 0) return encoded;
    encoded.scale = search(book, y, energy, top);
    const float scale = scale_from_code(static_cast<uint8_t>(encoded.scale));
    for (size_t i = 0; i < y.size(); ++i) {
        const int code = book.code.byte[magnitude(y[i], scale)],
                  mirrored = book.bits == kMaxBits ? 256 : (1 << book.bits) - 1;
        encoded.codes[i] = static_cast<uint8_t>(y[i] < 0 ? mirrored - code : code);
    }
    if (!unbiased) return encoded;
    const float projection =
        sum(y, [&](float v, float s) { return std::fma(std::fabs(v), centroid(book, v, scale), s); });
    encoded.scale = scale_code_nearest(energy / projection);
    return encoded;
}

Encoded encode(Isa isa, const Codebook& book, const Values& y, bool unbiased) {
    Encoded encoded{0, std::vector<uint8_t>(y.size())};
    uint8_t scale = 0;
    codec_kernels(isa).encode_groups(book, y.data(), static_cast<int>(y.size()), 64, unbiased, encoded.codes.data(),
                                     &scale);
    encoded.scale = scale;
    return encoded;
}

enum class Kind { kGaussian, kDecoded, kHalfWay, kEqual, kOneOfMany, kBarelyNotZero };
constexpr Kind kKinds[] = {Kind::kGaussian, Kind::kDecoded,   Kind::kHalfWay,
                           Kind::kEqual,    Kind::kOneOfMany, Kind::kBarelyNotZero};

// Values at which scales tie, roundings are halves, windows are wide, or the group is almost zero.
Values make_group(Kind kind, const Codebook& book, int n, Random& random) {
    const float scale = scale_from_code(static_cast<uint8_t>(40 + random.below(180)));
    const auto normal = [&] { return static_cast<float>(random.normal()); };
    Values y(n);
    for (float& v : y) {
        switch (kind) {
            case Kind::kGaussian:
                v = 100 * scale * normal();
                break;
            case Kind::kDecoded:
                v = scale * static_cast<float>(book.centroid[random.below(1 << book.bits)]);
                break;
            case Kind::kHalfWay:
                v = scale * static_cast<float>(random.below(511) - 255) / 2;
                break;
            case Kind::kEqual:
                v = random.below(2) == 0 ? scale : -scale;
                break;
            case Kind::kOneOfMany:
                v = random.below(n) == 0 ? 1000 * scale : 0;
                break;
            case Kind::kBarelyNotZero:
                v = 127 * 0x1p-24f * (1 + 0x1p-20f * normal()) * (random.below(3) - 1);
                break;
        }
    }
    return y;
}

class EncodeGroup : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Bits, EncodeGroup, testing::Range(kMinBits, kMaxBits + 1), testing::PrintToStringParamName());

TEST_P(EncodeGroup, TriesEveryCandidate) {
    const Codebook& book = codebook(GetParam());
    Random random(static_cast<uint64_t>(GetParam()));
    for (int n : {16, 32, 48, 64})
        for (Kind kind : kKinds)
            for (int i = 0; i < 300; ++i) {
                const bool unbiased = i % 2 == 1;
                const Values y = make_group(kind, book, n, random);
                const Encoded expected = encode_plainly(book, y, unbiased);
                for (Isa isa : available_isas()) {
                    ASSERT_EQ(encode(isa, book, y, unbiased), expected)
                        << isa_name(isa) << " n " << n << " kind " << static_cast<int>(kind) << " trial " << i;
                }
            }
}

// The first groups are encoded together, and the last may be narrower.
TEST_P(EncodeGroup, DoesNotDependOnOtherGroups) {
    const Codebook& book = codebook(GetParam());
    Random random(static_cast<uint64_t>(GetParam()));
    for (Isa isa : available_isas())
        for (int width : {32, 64})
            for (int n = 16; n <= kMaxGroupedValues; n += 16) {
                Values y;
                for (int begin = 0; begin < n; begin += width) {
                    const Kind kind = kKinds[random.below(std::size(kKinds))];
                    const Values group = make_group(kind, book, std::min(width, n - begin), random);
                    y.insert(y.end(), group.begin(), group.end());
                }
                std::vector<uint8_t> codes(n), scales(kMaxGroups);
                codec_kernels(isa).encode_groups(book, y.data(), n, width, false, codes.data(), scales.data());
                for (int begin = 0; begin < n; begin += width) {
                    const int end = std::min(begin + width, n);
                    const Encoded alone = encode(isa, book, Values(y.begin() + begin, y.begin() + end), false);
                    const Encoded together{scales[begin / width], {codes.begin() + begin, codes.begin() + end}};
                    ASSERT_EQ(together, alone)
                        << isa_name(isa) << " width " << width << " n " << n << " begin " << begin;
                }
            }
}

}  // namespace
}  // namespace tq::test
