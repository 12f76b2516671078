// Each kind of fault is found where it is planted, by its name, and nothing where it is not.
#include <ostream>
#include <vector>

#include <gtest/gtest.h>

#include "lanes/dispatch.h"

TQ_METAL_LIBRARY(metal_faults);

namespace tq::lanes {
namespace {

constexpr uint32_t kGroups = 2, kLanes = 64, kValues = kGroups * kLanes;

struct Planted {
    const char* kernel;
    const char* fault;    // its name
    const char* mention;  // in its text
};
void PrintTo(const Planted& planted, std::ostream* out) {
    *out << planted.kernel;
}

const Planted kPlanted[] = {
    {"threadgroup_race", "race in threadgroup memory", "threadgroup memory shared"},
    {"barrier_of_other_memory", "race in threadgroup memory", "threadgroup memory shared"},
    {"write_after_read", "race in threadgroup memory", "threadgroup memory shared"},
    {"simdgroup_barrier_is_too_little", "race in threadgroup memory", "threadgroup memory shared"},
    {"simd_operation_is_no_barrier", "race in threadgroup memory", "threadgroup memory shared"},
    {"device_race", "race in device memory", "out (buffer 1)"},
    {"device_read_of_other_threadgroup", "race in device memory", "out (buffer 1)"},
    {"atomic_counts", "race in device memory", "counts (buffer 1)"},
    {"out_of_bounds_read", "out-of-bounds read",
     "in (buffer 0) (512 bytes) at +512, lane 31 of SIMD group 1, threadgroup (1, 0, 0) (faults.metal:"},
    {"out_of_bounds_write", "out-of-bounds write",
     "out (buffer 1) (512 bytes) at +512, lane 31 of SIMD group 1, threadgroup (1, 0, 0)"},
    {"out_of_bounds_copy", "out-of-bounds read",
     "in (buffer 0) (512 bytes) at +512, lane 7 of SIMD group 0, threadgroup (0, 0, 0)"},
    {"out_of_bounds_threadgroup", "out-of-bounds write",
     "threadgroup memory shared (256 bytes) at +256, lane 31 of SIMD group 1"},
    {"read_only_write", "write to read-only memory", "in (buffer 0)"},
    {"uninitialized_threadgroup", "read of uninitialized memory", "threadgroup memory shared"},
    {"uninitialized_device", "read of uninitialized memory", "out (buffer 1)"},
    {"index_beyond_array", "undefined behaviour", "an index beyond an array, lane 31 of SIMD group 1"},
    {"shift_by_too_many", "undefined behaviour", "a shift by"},
    {"signed_overflow", "undefined behaviour", "overflow of a signed addition"},
    {"divergent_barrier", "divergent barrier", "threadgroup_barrier (faults.metal:"},
    {"two_barriers", "divergent barrier", "threadgroup_barrier (faults.metal:"},
    {"divergent_simd_operation", "divergent SIMD operation", "simd_sum (faults.metal:"},
    {"two_simd_operations", "divergent SIMD operation", "simd_sum (faults.metal:"},
    {"early_return", "divergent SIMD operation", "has returned"},
};

std::vector<Report> run_faults(const char* kernel, bool planted, uint64_t seed) {
    std::vector<float> in(kValues + 32, 2), out(kValues + 32, 0);
    std::vector<uint8_t> defined(kValues * sizeof(float), 0);
    const bool counts = kernel == std::string("atomic_counts");
    Launch launch;
    launch.kernel = kernel;
    launch.buffers = {Launch::read(0, in.data(), kValues * sizeof(float)),
                      Launch::write(1, out.data(), kValues * sizeof(float), counts ? nullptr : defined.data())};
    if (kernel == std::string("out_of_bounds_threadgroup")) launch.threadgroup_memory = {{0, kLanes * sizeof(float)}};
    launch.constants = {{0, &planted, 1}};
    launch.threadgroups({kGroups}, {kLanes});
    launch.seed = seed;
    launch.max_reports = 1000;
    return run(msl_library_metal_faults, launch);
}

class MetalFaults : public testing::TestWithParam<Planted> {};

TEST_P(MetalFaults, AreFoundByNameWhateverTheOrderOfLanes) {
    const Planted& planted = GetParam();
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        const auto reports = run_faults(planted.kernel, true, seed);
        bool found = false;
        for (const Report& report : reports) {
            // In a race a reader may come before the writer.
            const bool of_race =
                report.fault == Fault::kUninitializedRead && std::string(planted.fault).rfind("race", 0) == 0;
            if (name(report.fault) == std::string(planted.fault)) {
                found = true;
                EXPECT_NE(report.text.find(planted.mention), std::string::npos) << report.text;
            } else if (!of_race) {
                ADD_FAILURE() << report.text;
            }
        }
        EXPECT_TRUE(found) << planted.fault << " with seed " << seed;
    }
}

TEST_P(MetalFaults, AreNotFoundWhereThereAreNone) {
    for (uint64_t seed = 1; seed <= 20; ++seed)
        for (const Report& report : run_faults(GetParam().kernel, false, seed)) ADD_FAILURE() << report.text;
}

INSTANTIATE_TEST_SUITE_P(, MetalFaults, testing::ValuesIn(kPlanted),
                         [](const auto& test) { return std::string(test.param.kernel); });

TEST(MetalReports, AreCapped) {
    std::vector<float> in(kValues), out(kValues);
    const bool planted = true;
    Launch launch;
    launch.kernel = "device_race";
    launch.buffers = {Launch::read(0, in.data(), kValues * sizeof(float)),
                      Launch::write(1, out.data(), kValues * sizeof(float))};
    launch.constants = {{0, &planted, 1}};
    launch.threadgroups({kGroups}, {kLanes});
    EXPECT_EQ(run(msl_library_metal_faults, launch).size(), 20u);
    launch.max_reports = 3;
    EXPECT_EQ(run(msl_library_metal_faults, launch).size(), 3u);
    launch.check = false;
    EXPECT_TRUE(run(msl_library_metal_faults, launch).empty());
}

}  // namespace
}  // namespace tq::lanes
