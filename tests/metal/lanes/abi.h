// What translated shaders (compiled by Clang) and the lanes that run them (compiled with the project) share: plain data
// and C functions alone, so that only bytes and pointers cross.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// The attributes of kernel parameters that are not memory.
enum msl_input : int {
    MSL_THREAD_POSITION_IN_GRID,
    MSL_THREAD_POSITION_IN_THREADGROUP,
    MSL_THREADGROUP_POSITION_IN_GRID,
    MSL_THREADS_PER_GRID,
    MSL_THREADS_PER_THREADGROUP,
    MSL_DISPATCH_THREADS_PER_THREADGROUP,
    MSL_THREADGROUPS_PER_GRID,
    MSL_THREAD_INDEX_IN_THREADGROUP,
    MSL_THREAD_INDEX_IN_SIMDGROUP,
    MSL_SIMDGROUP_INDEX_IN_THREADGROUP,
    MSL_THREADS_PER_SIMDGROUP,
    MSL_THREAD_EXECUTION_WIDTH,
    MSL_SIMDGROUPS_PER_THREADGROUP,
    MSL_INPUTS,
};

enum msl_slot_kind : int { MSL_BUFFER, MSL_THREADGROUP, MSL_INPUT };

// One parameter of a kernel.
struct msl_slot {
    msl_slot_kind kind;
    int index;               // of the buffer or the threadgroup memory; or which msl_input
    const char* name;        // in the shader's text
    const bool* only_where;  // the function constant that the parameter hangs on, or null
};

struct msl_kernel {
    const char* name;  // host_name, or the function's own
    const msl_slot* slots;
    int slot_count;
    int max_threads;  // [[max_total_threads_per_threadgroup]], or 0
    // arguments[i] is for slots[i]: the memory's address, or that of three uint32_t.
    void (*call)(const void* const* arguments);
};

struct msl_constant {  // [[function_constant(index)]]
    int index;
    const char* name;
    void* value;
    size_t bytes;
    bool* defined;
};

struct msl_library {
    const msl_kernel* const* kernels;
    int kernel_count;
    const msl_constant* constants;
    int constant_count;
};

enum msl_sync : int { MSL_NO_SYNC, MSL_SIMD_OPERATION, MSL_SIMDGROUP_BARRIER, MSL_THREADGROUP_BARRIER };
enum msl_memory : unsigned { MSL_DEVICE_MEMORY = 1, MSL_THREADGROUP_MEMORY = 2 };

constexpr int kMslSimdWidth = 32;
constexpr int kMslSlotBytes = 64;
constexpr int kMslParameters = 64;  // of a kernel, at most

// What the lanes of a SIMD group gave to an operation, and room for a result that one of them computes for all.
struct msl_exchange_slots {
    unsigned char values[kMslSimdWidth][kMslSlotBytes];
    unsigned char result[kMslSlotBytes];
    uint32_t active;    // a bit per lane that takes part
    uint32_t rotation;  // where reductions start: their order is not specified
    bool has_result;
};

// Where a lane meets others: the call's address tells places apart, file and line are for people.
struct msl_place {
    const void* address;
    const char* file;
    int line;
    const char* operation;
};

// Returns when all lanes of the SIMD group have called it at the same place.
msl_exchange_slots* msl_exchange(const void* value, size_t bytes, const msl_place* place);
void msl_barrier(msl_sync scope, unsigned memory, const msl_place* place);
int msl_lane();  // thread_index_in_simdgroup

// The same memory for all lanes of a threadgroup that ask with the same id.
void* msl_threadgroup_variable(const char* name, const void* id, size_t bytes);

// The shim's own accesses; those of a shader's code come through hooks.cpp.
void msl_atomic_access(const void* address, size_t bytes, bool reads, bool writes);

}  // extern "C"
