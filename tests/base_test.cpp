// Half and bfloat16 conversions, group scales, ISA selection: exhaustively where the domain allows.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/random.h"
#include "turboquant/base/half.h"
#include "turboquant/base/isa.h"
#include "turboquant/base/machine.h"
#include "turboquant/format/scale.h"

namespace tq::test {
namespace {

// ---- half and bfloat16
// ------------------------------------------------------------------------------------------------

double reference_half(uint16_t half) {
    const int exponent = (half >> 10) & 31, mantissa = half & 1023;
    const double sign = half & 0x8000 ? -1 : 1;
    if (exponent == 31) return mantissa ? std::nan("") : sign * INFINITY;
    return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

bool is_nan_half(uint16_t half) {
    return (half & 0x7fff) > 0x7c00;
}

TEST(Half, AllValuesAreExactAndRoundTrip) {
    for (int bits = 0; bits < 65536; ++bits) {
        const auto half = static_cast<uint16_t>(bits);
        const float value = half_to_float(half);
        if (is_nan_half(half)) {
            ASSERT_TRUE(std::isnan(value) && is_nan_half(float_to_half(value))) << bits;
        } else {
            ASSERT_EQ(value, static_cast<float>(reference_half(half))) << bits;
            ASSERT_EQ(float_to_half(value), half) << bits;
        }
    }
}

// Just below, at and just above the middle between each two neighbours: ties go to the even one.
TEST(Half, SpansAreConvertedAsSingleValues) {
    std::vector<uint16_t> halves(65536), back(65536);
    std::vector<float> floats(65536);
    std::iota(halves.begin(), halves.end(), uint16_t{0});
    halves_to_floats(halves.data(), 65536, floats.data());
    floats_to_halves(floats.data(), 65536, back.data());
    for (int i = 0; i < 65536; ++i) {
        ASSERT_EQ(std::bit_cast<uint32_t>(floats[i]), std::bit_cast<uint32_t>(half_to_float(halves[i]))) << i;
        ASSERT_EQ(back[i], float_to_half(floats[i])) << i;
    }
}

TEST(Half, RoundsToNearestEven) {
    for (uint16_t half = 0; half < 0x7bff; ++half) {
        const auto next = static_cast<uint16_t>(half + 1);
        const auto middle = static_cast<float>((reference_half(half) + reference_half(next)) / 2);
        ASSERT_EQ(float_to_half(middle), half % 2 ? next : half) << half;
        ASSERT_EQ(float_to_half(std::nextafter(middle, 0.0f)), half);
        ASSERT_EQ(float_to_half(std::nextafter(middle, INFINITY)), next);
        ASSERT_EQ(float_to_half(-middle), (half % 2 ? next : half) | 0x8000);
    }
    EXPECT_EQ(float_to_half(65519.996f), 0x7bff);
    EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
    EXPECT_EQ(float_to_half(-1e30f), 0xfc00);
}

TEST(Half, RandomFloatsRoundToTheNearest) {
    Random random(1);
    for (int i = 0; i < 100000; ++i) {
        const float value = std::bit_cast<float>(static_cast<uint32_t>(random.next()));
        if (!(std::abs(value) < 65504)) continue;
        const uint16_t half = float_to_half(value);
        const double error = std::abs(reference_half(half) - value);
        ASSERT_LE(error, std::abs(reference_half(static_cast<uint16_t>(half + 1)) - value)) << value;
        if (half & 0x7fff) {
            ASSERT_LE(error, std::abs(reference_half(static_cast<uint16_t>(half - 1)) - value)) << value;
        }
    }
}

TEST(Bfloat16, RoundTripsAndRoundsToNearestEven) {
    for (uint32_t bits = 0; bits < 65536; ++bits) {
        const auto b = static_cast<uint16_t>(bits);
        const float value = bfloat16_to_float(b);
        if (std::isnan(value)) {
            ASSERT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(value)))) << bits;
            continue;
        }
        ASSERT_EQ(float_to_bfloat16(value), b);
        if (std::isinf(value)) continue;
        ASSERT_EQ(float_to_bfloat16(std::bit_cast<float>(bits << 16 | 0x7fff)), b);
        ASSERT_EQ(float_to_bfloat16(std::bit_cast<float>(bits << 16 | 0x8000)), b + b % 2);
        ASSERT_EQ(float_to_bfloat16(std::bit_cast<float>(bits << 16 | 0x8001)), b + 1);
    }
}

// A NaN with all of its payload in the low bits must not become infinity.
TEST(Bfloat16, KeepsNans) {
    EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
}

// ---- group scales
// -----------------------------------------------------------------------------------------------------

double reference_scale(int code) {
    return code < 8 ? std::ldexp(code, -23) : std::ldexp(8 + code % 8, code / 8 - 24);
}

TEST(Scale, AllCodesAreE5M3AndAscend) {
    for (int code = 0; code <= kMaxScaleCode; ++code) {
        EXPECT_EQ(scale_from_code(static_cast<uint8_t>(code)), reference_scale(code)) << code;
        if (code > 0) {
            EXPECT_LT(reference_scale(code - 1), reference_scale(code));
        }
    }
    EXPECT_EQ(reference_scale(kMaxScaleCode), 1920);
}

TEST(Scale, ExactScalesGiveTheirCode) {
    for (int code = 0; code <= kMaxScaleCode; ++code) {
        const float scale = scale_from_code(static_cast<uint8_t>(code));
        EXPECT_EQ(scale_code_floor(scale), code);
        EXPECT_EQ(scale_code_ceil(scale), code);
        EXPECT_EQ(scale_code_nearest(scale), code);
    }
}

TEST(Scale, BetweenTwoScalesFloorCeilAndNearestDiffer) {
    for (int code = 0; code < kMaxScaleCode; ++code) {
        const float below = scale_from_code(static_cast<uint8_t>(code)),
                    above = scale_from_code(static_cast<uint8_t>(code + 1));
        const float middle = (below + above) / 2;
        for (float scale : {std::nextafter(below, above), middle, std::nextafter(above, below)}) {
            EXPECT_EQ(scale_code_floor(scale), code) << scale;
            EXPECT_EQ(scale_code_ceil(scale), code + 1) << scale;
        }
        EXPECT_EQ(scale_code_nearest(std::nextafter(middle, below)), code);
        EXPECT_EQ(scale_code_nearest(middle), code);
        EXPECT_EQ(scale_code_nearest(std::nextafter(middle, above)), code + 1);
    }
}

TEST(Scale, Saturates) {
    for (float scale :
         {1920.0f, 1e9f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        EXPECT_EQ(scale_code_floor(scale), kMaxScaleCode);
        EXPECT_EQ(scale_code_ceil(scale), kMaxScaleCode);
        EXPECT_EQ(scale_code_nearest(scale), kMaxScaleCode);
    }
}

// ---- ISA
// --------------------------------------------------------------------------------------------------------------

TEST(Isa, AvailableOnesStartWithScalarAndAscend) {
    const std::vector<Isa> isas = available_isas();
    ASSERT_EQ(isas.front(), Isa::kScalar);
    for (size_t i = 1; i < isas.size(); ++i) EXPECT_LT(isas[i - 1], isas[i]);
}

TEST(Isa, NamesDiffer) {
    std::set<std::string> names;
    for (Isa isa : kAllIsas) names.insert(isa_name(isa));
    EXPECT_EQ(names.size(), kAllIsas.size());
    EXPECT_FALSE(names.contains("unknown"));
}

TEST(Isa, EveryAvailableOneCanBeSelectedByName) {
    for (Isa isa : available_isas()) EXPECT_EQ(select_isa(isa_name(isa)).value(), isa);
    EXPECT_EQ(select_isa("").value(), available_isas().back());
}

void expect_refused_with_the_list(const char* name) {
    const auto isa = select_isa(name);
    ASSERT_FALSE(isa.ok()) << name;
    EXPECT_EQ(isa.status().error(), Error::kInvalidArgument);
    EXPECT_NE(isa.status().message().find(name), std::string::npos);
    for (Isa available : available_isas())
        EXPECT_NE(isa.status().message().find(isa_name(available)), std::string::npos);
}

// scripts/test names those that the operating system says the processor has: none may be missed.
#ifndef TQ_SOME_ISAS
TEST(Isa, RequiredOnesAreAvailable) {
    const char* required = std::getenv("TQ_REQUIRE_ISAS");
    if (required == nullptr) GTEST_SKIP() << "TQ_REQUIRE_ISAS is not set";
    std::istringstream names(required);
    for (std::string name; names >> name;) EXPECT_TRUE(select_isa(name).ok()) << name;
}
#endif

// Also those of other machines: on any machine there are some.
TEST(Isa, UnknownAndUnavailableNamesAreRefusedWithTheList) {
    expect_refused_with_the_list("sse9");
    const std::vector<Isa> available = available_isas();
    for (Isa isa : kAllIsas)
        if (std::find(available.begin(), available.end(), isa) == available.end())
            expect_refused_with_the_list(isa_name(isa));
}

// Each level of a family includes those before.
TEST(Isa, AHigherLevelComesWithTheLowerOnes) {
#ifdef TQ_SOME_ISAS
    GTEST_SKIP() << "this build leaves instruction sets out";
#endif
    constexpr std::pair<Isa, Isa> kIncludes[] = {{Isa::kAvxVnni, Isa::kAvx2},
                                                 {Isa::kAvx512, Isa::kAvx2},
                                                 {Isa::kAvx512Vnni, Isa::kAvx512},
                                                 {Isa::kAvx512Vbmi, Isa::kAvx512Vnni},
                                                 {Isa::kI8mm, Isa::kNeon}};
    for (const auto& [higher, lower] : kIncludes) {
        if (machine_has(higher)) {
            EXPECT_TRUE(machine_has(lower)) << isa_name(higher);
        }
    }
}

TEST(Isa, ComesFromTheEnvironment) {
    ASSERT_EQ(setenv("TURBOQUANT_ISA", "scalar", 1), 0);
    EXPECT_EQ(select_isa_from_environment().value(), Isa::kScalar);
    ASSERT_EQ(unsetenv("TURBOQUANT_ISA"), 0);
    EXPECT_EQ(select_isa_from_environment().value(), available_isas().back());
}

}  // namespace
}  // namespace tq::test
