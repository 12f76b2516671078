// What a host does to run the shaders: which kernels, in which order, on how many threadgroups, with which buffers. It
// knows neither Metal nor MLX; whoever has a command encoder only carries it out:
//
//   Result<AttentionLaunches> plan = plan_metal_attention(call);     // kUnsupported: the reason, and decode to dense
//   for (const MetalLaunch& launch : plan.value().launches) {
//       library = compile(launch.kernel, metal_source() + launch.instantiation);  // once for each name; safe math
//       for (const MetalBinding& b : launch.bindings) bind(b.index, array_of(b.operand), b.written);
//       dispatch_threadgroups(launch.grid, launch.threads);          // in order: a later one reads what an earlier
//       wrote
//   }
//
// Operands are numbered like buffers (metal/params.h: kBufferQuery and so on). kBufferParams is plan.value().params as
// bytes. Buffers that the host has to provide beside its own arrays have their sizes in bytes in the plan. Threadgroup
// memory is declared in the kernels; the host sets none. An index that a call does not use is bound to another array,
// so that every index of a kernel is bound.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "turboquant/attention/params.h"
#include "turboquant/base/status.h"
#include "turboquant/format/row_format.h"
#include "turboquant/metal/params.h"

namespace tq {

struct MetalBinding {
    int index;    // [[buffer(index)]]
    int operand;  // the array that is bound there: kBuffer...
    bool written;
};

struct MetalLaunch {
    std::string kernel;         // host name, unique for what is compiled
    std::string instantiation;  // text to append to metal_source()
    uint32_t grid[3];           // threadgroups
    uint32_t threads[3];        // of a threadgroup
    std::vector<MetalBinding> bindings;
};

// One attention call. Strides are in elements; the elements of a row lie side by side.
struct MetalAttention {
    AttentionShape shape;  // n_threads and max_bias are not used
    RowFormat keys, values;
    FloatType q_type = FloatType::kF32, out_type = FloatType::kF32;
    int mask_type = kMaskNone;  // kMaskBool and so on
    RowStrides q{}, mask{}, out{};
    int64_t k_cells = 0, v_cells = 0;  // cells that a stream has room for: its blocks of records, or of the table
    bool k_table = false, v_table = false;
    bool sinks = false;
    bool k_scaled = false, v_scaled = false;  // diagonals for each KV head (channel scales), or one for all
};

struct AttentionLaunches {
    AttentionParams params{};
    size_t prepared_query_bytes = 0, logit_scale_bytes = 0, partial_stats_bytes = 0, partial_out_bytes = 0;
    std::vector<MetalLaunch> launches;
};

// Why the shaders cannot take this call, in words that say what is known, or "" if they can.
std::string metal_unsupported_reason(const MetalAttention& call);

// Errors: kUnsupported with the reason; kInvalidArgument (sizes that are not positive, formats of another width).
Result<AttentionLaunches> plan_metal_attention(const MetalAttention& call);

// New rows into records, or rows out of them. kBufferLengths has the first cell and the number of cells of each stream.
struct MetalRows {
    RowFormat format;
    int head_dim = 0;
    FloatType type = FloatType::kF32;
    RowStrides rows{};    // token: from one cell's row to the next's
    int64_t n_cells = 0;  // that a stream has room for
    int64_t n_rows = 0;   // at most so many cells of a stream
    int64_t n_stream = 1;
    bool table = false, scaled = false;
};

struct RowsLaunch {
    RowsParams params{};
    MetalLaunch launch;  // operands: kBufferParams, kBufferLengths, kBufferRows, kBufferRecords, ...
};

std::string metal_unsupported_reason(const MetalRows& rows);
// Errors as above. Cells of append follow one another; it writes nothing but the records of their blocks.
Result<RowsLaunch> plan_metal_append(const MetalRows& rows);
Result<RowsLaunch> plan_metal_decode(const MetalRows& rows);

// Diagonals of a codec's rotations as kBufferKeyRotation and kBufferValueRotation have them: [head][3][head_dim].
std::vector<float> metal_rotation(const std::vector<Rotation>& rotations);

// The text of all shaders, without instances.
const std::string& metal_source();

}  // namespace tq
