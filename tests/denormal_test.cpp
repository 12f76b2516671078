// Some hosts let their threads flush denormal floats to zero (-ffast-math sets it for a whole process). The bytes of a
// cache, and what they decode to, must be the same there.
#include <gtest/gtest.h>

#include "tests/support/packed_rows.h"
#include "tests/support/rows.h"
#include "turboquant/base/half.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace tq::test {
namespace {

// While it lives, this thread's denormal inputs and results are zeros.
class FlushDenormals {
  public:
    FlushDenormals() : before_(get()) { set(before_ | kBits); }
    ~FlushDenormals() { set(before_); }

  private:
#if defined(__SSE2__)
    static constexpr uint64_t kBits = 0x8040;  // FTZ and DAZ
    static uint64_t get() {
        return _mm_getcsr();
    }
    static void set(uint64_t bits) {
        _mm_setcsr(static_cast<unsigned>(bits));
    }
#elif defined(__aarch64__)
    static constexpr uint64_t kBits = uint64_t{1} << 24;  // FZ
    static uint64_t get() {
        uint64_t bits;
        asm volatile("mrs %0, fpcr" : "=r"(bits));
        return bits;
    }
    static void set(uint64_t bits) {
        asm volatile("msr fpcr, %0" : : "r"(bits));
    }
#endif
    uint64_t before_;
};

// A row of all magnitudes: powers of two of this exponent and 24 below it, a few denormals among them.
std::vector<float> wide_row(int64_t width, int exponent, Random& random) {
    std::vector<float> row = random.normals(width);
    for (float& x : row) x = std::ldexp(x, exponent - static_cast<int>(random.below(25)));
    for (int i = 0; i < 4; ++i) row[random.below(width)] = std::ldexp(1.0f, -127 - static_cast<int>(random.below(20)));
    return row;
}

class Denormals : public testing::TestWithParam<std::tuple<Side, Codes>> {};
INSTANTIATE_TEST_SUITE_P(Codings, Denormals,
                         testing::Combine(testing::Values(Side::kKey, Side::kValue), testing::ValuesIn(all_codings())));

TEST_P(Denormals, FlushingThemChangesNoBytesAndNoRows) {
    const auto [side, coding] = GetParam();
    for (bool with_center : {false, true}) {
        if (with_center && side == Side::kValue) continue;
        for (int head_dim : {48, 80}) {
            for (Isa isa : available_isas()) {
                Random random(static_cast<uint64_t>(head_dim));
                const PackedShape shape{side, with_center ? centered(coding) : coding, head_dim, 2, 140};
                PackedRows plain(shape, isa), flushed(shape, isa);
                for (int64_t cell = 0; cell < 140; ++cell) {
                    const std::vector<float> row = wide_row(plain.width(), 4 - static_cast<int>(cell) % 40, random);
                    plain.encode(row, cell);
                    const FlushDenormals flush;
                    flushed.encode(row, cell);
                }
                ASSERT_EQ(plain.bytes, flushed.bytes) << isa_name(isa) << " " << head_dim;
                for (int64_t cell = 0; cell < 140; ++cell) {
                    const std::vector<float> expected = plain.decode(cell);
                    const FlushDenormals flush;
                    ASSERT_TRUE(same_bits(flushed.decode(cell), expected)) << isa_name(isa) << " cell " << cell;
                }
            }
        }
    }
}

TEST(Denormals, FlushingThemChangesNoHalves) {
    for (int half = 0; half < 65536; ++half) {
        const float value = half_to_float(static_cast<uint16_t>(half));
        const FlushDenormals flush;
        ASSERT_EQ(std::bit_cast<uint32_t>(half_to_float(static_cast<uint16_t>(half))), std::bit_cast<uint32_t>(value))
            << half;
        if ((half & 0x7fff) <= 0x7c00) {
            ASSERT_EQ(float_to_half(value), half);
        }
    }
}

}  // namespace
}  // namespace tq::test
