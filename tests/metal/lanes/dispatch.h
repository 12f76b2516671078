// Runs kernels of a translated Metal library lane by lane, and reports what they do wrong. See ../README.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "abi.h"

namespace tq::lanes {

enum class Fault {
    kLaunch,                 // the call does not fit the kernel: nothing was run
    kOutOfBoundsRead,        // of memory that the kernel was not given
    kOutOfBoundsWrite,       //
    kReadOnlyWrite,          // to a read-only buffer or constant data
    kThreadgroupRace,        // two lanes, at least one writes, and no barrier between
    kDeviceRace,             // the same in a buffer; different threadgroups are never ordered
    kUninitializedRead,      // of threadgroup memory that no lane of the threadgroup wrote, or of an undefined buffer
    kUndefinedBehavior,      // an index beyond a local array, a shift by too many bits, signed overflow
    kDivergentBarrier,       // lanes of a threadgroup that do not meet at the same barrier
    kDivergentSimdOperation  // lanes of a SIMD group that do not meet at the same SIMD operation
};
const char* name(Fault fault);

struct Report {
    Fault fault;
    std::string text;
};

struct Size3 {
    uint32_t x = 1, y = 1, z = 1;
};

// One buffer binding: [[buffer(index)]]. setBytes is a read-only buffer.
struct Buffer {
    int index = 0;
    void* data = nullptr;
    size_t bytes = 0;  // exactly what may be touched
    bool writable = false;
    // One byte for each byte of the buffer, or null: 0 where nothing was written yet, which must not be read. Writes
    // set it to 1, so that it can go through several dispatches.
    uint8_t* defined = nullptr;
};

struct ThreadgroupMemory {  // [[threadgroup(index)]]
    int index = 0;
    size_t bytes = 0;
};

struct FunctionConstant {
    int index = 0;
    const void* value = nullptr;
    size_t bytes = 0;
};

struct Launch {
    std::string kernel;
    std::vector<Buffer> buffers;
    std::vector<ThreadgroupMemory> threadgroup_memory;
    std::vector<FunctionConstant> constants;
    Size3 grid;                    // in threads, as dispatchThreads takes it
    Size3 threadgroup;             // threads of a threadgroup
    bool check = true;             // false: loads and stores are not looked at (divergence still is)
    bool flush_denormals = false;  // as GPUs may do; on x86 alone
    uint64_t seed = 1;             // the order of lanes, SIMD groups and threadgroups
    int max_reports = 20;

    static Buffer read(int index, const void* data, size_t bytes, uint8_t* defined = nullptr) {
        return {index, const_cast<void*>(data), bytes, false, defined};
    }
    static Buffer write(int index, void* data, size_t bytes, uint8_t* defined = nullptr) {
        return {index, data, bytes, true, defined};
    }
    // As dispatchThreadgroups takes it.
    void threadgroups(Size3 count, Size3 threads) {
        grid = {count.x * threads.x, count.y * threads.y, count.z * threads.z};
        threadgroup = threads;
    }
};

// Empty where nothing was wrong. Not for several threads at a time.
std::vector<Report> run(const msl_library& library, const Launch& launch);

// A library's own limits, as on Apple GPUs.
inline constexpr size_t kThreadgroupMemoryBytes = 32768;
inline constexpr uint32_t kMaxThreadsPerThreadgroup = 1024;

}  // namespace tq::lanes

// The library that tq_add_metal_library(NAME ...) made.
#define TQ_METAL_LIBRARY(NAME) extern "C" const msl_library msl_library_##NAME
