// The shim of Metal's standard library against plain loops, and launches that do not fit their kernels.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "lanes/dispatch.h"
#include "turboquant/base/half.h"

TQ_METAL_LIBRARY(metal_shim);

namespace tq::lanes {
namespace {

template <class T>
Buffer in(int index, const std::vector<T>& values) {
    return Launch::read(index, values.data(), values.size() * sizeof(T));
}
template <class T>
Buffer out(int index, std::vector<T>& values) {
    return Launch::write(index, values.data(), values.size() * sizeof(T));
}

Launch launch_of(const char* kernel, std::vector<Buffer> buffers, uint32_t lanes, uint64_t seed = 1) {
    Launch launch;
    launch.kernel = kernel;
    launch.buffers = std::move(buffers);
    launch.threadgroups({1}, {lanes});
    launch.seed = seed;
    return launch;
}

void expect_good(const Launch& launch) {
    for (const Report& report : run(msl_library_metal_shim, launch)) ADD_FAILURE() << report.text;
}

TEST(MetalShim, SimdOperationsAreThoseOfLoops) {
    constexpr int n = 24;
    std::vector<int> x(64), r(64 * n);
    for (uint32_t by : {0u, 1u, 5u, 17u, 31u}) {
        for (int i = 0; i < 64; ++i) x[static_cast<size_t>(i)] = (i * 37 + static_cast<int>(by)) % 101 - 50;
        for (uint64_t seed : {1u, 2u, 3u}) {
            expect_good(
                launch_of("simd_operations", {in(0, x), out(1, r), Launch::read(2, &by, sizeof(by))}, 64, seed));
            for (int i = 0; i < 64; ++i) {
                const int* v = x.data() + i / 32 * 32;
                const int* result = r.data() + i * n;
                const int lane = i % 32, b = static_cast<int>(by);
                int sum = 0, product = 1, all_bits = -1, any_bits = 0, odd_bits = 0, before = 0, ballot = 0;
                for (int j = 0; j < 32; ++j) {
                    sum += v[j];
                    product *= v[j] % 3 == 0 ? -1 : 1;
                    all_bits &= v[j];
                    any_bits |= v[j];
                    odd_bits ^= v[j];
                    if (j < lane) before += v[j];
                    if (v[j] > 0) ballot = static_cast<int>(static_cast<unsigned>(ballot) | 1u << j);
                }
                EXPECT_EQ(result[0], sum);
                EXPECT_EQ(result[1], *std::max_element(v, v + 32));
                EXPECT_EQ(result[2], *std::min_element(v, v + 32));
                EXPECT_EQ(result[3], all_bits);
                EXPECT_EQ(result[4], any_bits);
                EXPECT_EQ(result[5], odd_bits);
                EXPECT_EQ(result[6], product);
                EXPECT_EQ(result[7], v[b]);
                EXPECT_EQ(result[8], v[lane ^ b]);
                EXPECT_EQ(result[9], v[(lane + b) % 32]);
                EXPECT_EQ(result[10], v[(lane - b + 32) % 32]);
                EXPECT_EQ(result[11], v[b]);
                EXPECT_EQ(result[12], v[0]);
                EXPECT_EQ(result[13], before + v[lane]);
                EXPECT_EQ(result[14], before);
                EXPECT_EQ(result[15], ballot);
                EXPECT_EQ(result[16], ballot == -1);
                EXPECT_EQ(result[17], ballot != 0);
                if (lane + b < 32) {
                    EXPECT_EQ(result[18], v[lane + b]);
                }
                if (lane - b >= 0) {
                    EXPECT_EQ(result[19], v[lane - b]);
                }
                EXPECT_EQ(result[20], v[lane ^ 1]);
                EXPECT_EQ(result[21], 85 * v[lane ^ b] + 4 + 32 + 192);
                EXPECT_EQ(result[22], sum);
                EXPECT_EQ(result[23], lane == 0);
            }
        }
    }
}

// Of the last SIMD group of a threadgroup whose size is no multiple of 32 there are fewer lanes.
TEST(MetalShim, SimdOperationsOfSomeLanes) {
    std::vector<int> x(40), r(40 * 24);
    for (int i = 0; i < 40; ++i) x[static_cast<size_t>(i)] = i + 1;
    const uint32_t by = 1;
    expect_good(launch_of("simd_operations", {in(0, x), out(1, r), Launch::read(2, &by, sizeof(by))}, 40));
    EXPECT_EQ(r[32 * 24 + 0], 33 + 34 + 35 + 36 + 37 + 38 + 39 + 40);
    EXPECT_EQ(r[32 * 24 + 1], 40);
    EXPECT_EQ(r[32 * 24 + 15], 255);
    EXPECT_EQ(r[32 * 24 + 16], 1);
}

template <class T>
void multiply(const char* kernel, const std::vector<T>& a, const std::vector<T>& b, const std::vector<float>& wanted_a,
              const std::vector<float>& wanted_b) {
    std::vector<float> c(64), d(64), elements(64);
    for (size_t i = 0; i < 64; ++i) c[i] = static_cast<float>(i);
    for (uint64_t seed = 1; seed < 10; ++seed) {
        expect_good(launch_of(kernel, {in(0, a), in(1, b), in(2, c), out(3, d), out(4, elements)}, 32, seed));
        for (size_t row = 0; row < 8; ++row) {
            for (size_t column = 0; column < 8; ++column) {
                float sum = c[row * 8 + column];
                // a starts at 1 and has rows of 9; b starts at its second row and is stored by columns.
                for (size_t k = 0; k < 8; ++k) sum += wanted_a[1 + row * 9 + k] * wanted_b[8 * (1 + column) + k];
                EXPECT_EQ(d[row * 8 + column], sum) << row << " " << column;
            }
        }
        // MLX's coordinates (BaseMMAFrag::get_coord), written out for two lanes.
        EXPECT_EQ(elements[2 * 9], d[0 * 8 + 4 + 2]);
        EXPECT_EQ(elements[2 * 9 + 1], d[0 * 8 + 4 + 3]);
        EXPECT_EQ(elements[2 * 22], d[(4 + 3) * 8 + 0]);
        EXPECT_EQ(elements[2 * 31 + 1], d[63]);
    }
}

TEST(MetalShim, MatricesMultiply) {
    std::vector<float> a(73), b(72);
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(static_cast<int>(i * 7 % 23) - 11);
    for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(static_cast<int>(i * 5 % 19) - 9);
    multiply("multiply_float", a, b, a, b);
    std::vector<uint16_t> half_a(a.size()), half_b(b.size());
    floats_to_halves(a.data(), static_cast<int64_t>(a.size()), half_a.data());
    floats_to_halves(b.data(), static_cast<int64_t>(b.size()), half_b.data());
    multiply("multiply_half", half_a, half_b, a, b);
}

TEST(MetalShim, MatrixOfTheDiagonal) {
    std::vector<float> d(64);
    expect_good(launch_of("diagonal", {out(0, d)}, 32));
    EXPECT_EQ(d, std::vector<float>(64, 2.0f));
}

uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return bits;
}

TEST(MetalShim, ConversionsAreThoseOfTheLibrary) {
    std::vector<uint16_t> bits(65536), half_bits(65536), bfloat_bits(65536);
    std::vector<float> floats(65536), of_half(65536), of_bfloat(65536);
    for (uint32_t i = 0; i < 65536; ++i) {
        bits[i] = static_cast<uint16_t>(i);
        const uint32_t word = i * 65537u * 0x9e37u + 0x8000u;  // all exponents, ties among them
        std::memcpy(&floats[i], &word, sizeof(word));
    }
    Launch launch = launch_of(
        "conversions",
        {in(0, bits), in(1, floats), out(2, of_half), out(3, of_bfloat), out(4, half_bits), out(5, bfloat_bits)}, 1);
    launch.threadgroups({64}, {1024});
    expect_good(launch);
    for (uint32_t i = 0; i < 65536; ++i) {
        const float half = half_to_float(bits[i]);
        if (std::isnan(half)) {
            EXPECT_TRUE(std::isnan(of_half[i]));
        } else {
            EXPECT_EQ(bits_of(of_half[i]), bits_of(half)) << i;
        }
        EXPECT_EQ(bits_of(of_bfloat[i]), bits_of(bfloat16_to_float(bits[i]))) << i;
        if (std::isnan(floats[i])) {
            EXPECT_TRUE(std::isnan(half_to_float(half_bits[i])));
        } else {
            EXPECT_EQ(half_bits[i], float_to_half(floats[i])) << floats[i];
        }
        EXPECT_EQ(bfloat_bits[i], float_to_bfloat16(floats[i])) << floats[i];
    }
}

TEST(MetalShim, HalvesAreRoundedAfterEachOperation) {
    std::vector<uint16_t> a(256), b(256), c(256), d(256);
    for (uint32_t i = 0; i < 256; ++i) {
        a[i] = float_to_half(1 + static_cast<float>(i) / 256);
        b[i] = float_to_half(3 - static_cast<float>(i * 11 % 256) / 128);
        c[i] = float_to_half(-static_cast<float>(i * 7 % 256) / 64);
    }
    expect_good(launch_of("half_arithmetic", {in(0, a), in(1, b), in(2, c), out(3, d)}, 256));
    int differ = 0;
    for (uint32_t i = 0; i < 256; ++i) {
        const float product = half_to_float(a[i]) * half_to_float(b[i]), term = half_to_float(c[i]);
        EXPECT_EQ(d[i], float_to_half(half_to_float(float_to_half(product)) + term));
        differ += float_to_half(product + term) != d[i];
    }
    EXPECT_GT(differ, 0) << "rounding once would not have been noticed";
}

TEST(MetalShim, ContractionIsAsThePragmaSays) {
    const std::vector<float> x{1.0f + 0x1p-12f, 1.0f + 0x1p-12f, -1.0f};
    std::vector<float> r(3);
    expect_good(launch_of("contraction", {in(0, x), out(1, r)}, 1));
    const float product = x[0] * x[1];
    EXPECT_EQ(r[1], product + x[2]);
    EXPECT_EQ(r[2], std::fma(x[0], x[1], x[2]));
    EXPECT_NE(r[1], r[2]);
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("fma")) return;
#endif
    EXPECT_EQ(r[0], r[2]) << "Clang was expected to contract";
}

TEST(MetalShim, DenormalsAreFlushedWhereAskedFor) {
#if !defined(__x86_64__)
    GTEST_SKIP() << "on x86 alone";
#endif
    const std::vector<float> x{0x1p-126f};
    std::vector<float> r(2);
    Launch launch = launch_of("denormals", {in(0, x), out(1, r)}, 1);
    expect_good(launch);
    EXPECT_EQ(r, (std::vector<float>{0x1p-127f, 0x1p-128f}));
    launch.flush_denormals = true;
    expect_good(launch);
    EXPECT_EQ(r[0], 0.0f);
    EXPECT_EQ(r[1], 0.0f);
    EXPECT_GT(x[0] * 0.5f, 0.0f) << "the caller's own denormals";
}

TEST(MetalShim, Vectors) {
    std::vector<float> f(32);
    std::vector<uint32_t> w(16);
    expect_good(launch_of("vectors", {out(0, f), out(1, w)}, 1));
    const float pi = 3.14159274f;
    EXPECT_EQ(f, (std::vector<float>{4,  3,   2,  1, .5, .5, .5, .5, -1, 2, -3, 4,  9, 9,  2,    1,
                                     -1, -.5, .5, 1, 7,  8,  9,  10, 5,  1, 0,  pi, 2, -4, .125, 1}));
    EXPECT_EQ(w, (std::vector<uint32_t>{8, 31, 3, 32, 0xbc, 0xf00f, 0x80000000u, 3, 0x3f800000u, 0xbf800000u, 0,
                                        0x7f800000u, 1, 2, 3, 4}));
}

// At the edges of a grid in threads, threadgroups are smaller.
TEST(MetalShim, InputsOfLanes) {
    const Size3 grid{10, 5, 2}, size{4, 3, 2};
    std::vector<uint32_t> r(20 * 100);
    Launch launch = launch_of("inputs", {out(0, r)}, 1);
    launch.grid = grid;
    launch.threadgroup = size;
    expect_good(launch);
    for (uint32_t z = 0; z < grid.z; ++z) {
        for (uint32_t y = 0; y < grid.y; ++y) {
            for (uint32_t x = 0; x < grid.x; ++x) {
                const uint32_t* got = r.data() + 20 * (x + 10 * (y + 5 * z));
                const Size3 own{x >= 8 ? 2u : 4u, y >= 3 ? 2u : 3u, 2};
                const uint32_t index = x % 4 + own.x * (y % 3 + own.y * (z % 2));
                const uint32_t wanted[20] = {x,     y, z, x % 4, y % 3, z % 2, x / 4, y / 3, own.x, own.y,
                                             own.z, 3, 2, 1,     index, 0,     index, 1,     32,    100};
                for (int i = 0; i < 20; ++i) EXPECT_EQ(got[i], wanted[i]) << i << " at " << x << " " << y << " " << z;
            }
        }
    }
}

TEST(MetalShim, FunctionConstants) {
    std::vector<float> r(3), more{7};
    const int number = 42;
    const uint16_t ratio = float_to_half(0.25f);
    const bool yes = true;
    Launch launch = launch_of("function_constants", {out(0, r), in(1, more)}, 1);
    launch.constants = {{3, &number, 4}, {4, &ratio, 2}, {5, &yes, 1}};
    expect_good(launch);
    EXPECT_EQ(r, (std::vector<float>{42, 0.25f, 7}));
    const bool no = false;
    launch.constants = {{5, &no, 1}};
    launch.buffers.pop_back();
    expect_good(launch);
    EXPECT_EQ(r, (std::vector<float>{-1, -1, -1}));
}

void expect_refused(const Launch& launch, const char* mention) {
    const auto reports = run(msl_library_metal_shim, launch);
    ASSERT_EQ(reports.size(), 1u) << mention;
    EXPECT_EQ(reports[0].fault, Fault::kLaunch);
    EXPECT_NE(reports[0].text.find(mention), std::string::npos) << reports[0].text;
}

TEST(MetalLaunch, RefusesWhatDoesNotFitTheKernel) {
    std::vector<uint32_t> r(4096);
    const Launch good = launch_of("limited", {out(0, r)}, 64);
    expect_good(good);
    Launch launch = good;
    launch.kernel = "unlimited";
    expect_refused(launch, "unlimited: there is no such kernel");
    launch = good;
    launch.buffers[0].index = 1;
    EXPECT_EQ(run(msl_library_metal_shim, launch).size(), 2u);  // one is missing, one too many
    launch = good;
    launch.buffers.clear();
    expect_refused(launch, "nothing is bound to out, buffer 0");
    launch = good;
    launch.buffers.push_back(launch.buffers[0]);
    expect_refused(launch, "buffer 0 is bound twice");
    launch = good;
    launch.threadgroup = {65};
    expect_refused(launch, "1 to 64 are allowed");
    launch = good;
    launch.grid = {0};
    expect_refused(launch, "a grid of 0 x 1 x 1");
    launch = good;
    launch.threadgroup_memory = {{0, 16}};
    expect_refused(launch, "the kernel has no threadgroup memory 0");

    launch = launch_of("much_threadgroup_memory", {out(0, r)}, 1024);
    expect_refused(launch, "no length was given for given");
    launch.threadgroup_memory = {{0, 16384}};
    expect_good(launch);
    launch.threadgroup_memory[0].bytes += 16;
    expect_refused(launch, "own would be the end of 32784 bytes of threadgroup memory; 32768 are allowed");
    launch.threadgroup_memory[0].bytes = 16390;
    expect_refused(launch, "a multiple of 16 bytes");
}

TEST(MetalLaunch, RefusesFunctionConstantsThatAreNotThere) {
    std::vector<float> r(3);
    const int number = 42;
    Launch launch = launch_of("function_constants", {out(0, r)}, 1);
    launch.constants = {{3, &number, 2}};
    expect_refused(launch, "function constant number has 4 bytes, not 2");
    launch.constants = {{7, &number, 4}};
    expect_refused(launch, "there is no function constant 7");
}

}  // namespace
}  // namespace tq::lanes
