#include "turboquant/metal/launch.h"

#include <algorithm>
#include <initializer_list>

#include "turboquant/attention/plan.h"
#include "turboquant/metal/append_shape.h"
#include "turboquant/metal/attend_shape.h"

namespace tq {
namespace {

static_assert(static_cast<int>(FloatType::kF32) == kElementF32 && static_cast<int>(FloatType::kF16) == kElementF16 &&
              static_cast<int>(FloatType::kBf16) == kElementBf16);
static_assert(kSpan == kSpanBlocks && kWideWeights == kWideWeightBits);

constexpr float kLog2e = 1.44269504088896340736f;

// "kernel<64, 4, false>" and "kernel_64_4_0".
MetalLaunch launch_of(const std::string& kernel, std::initializer_list<int> arguments) {
    MetalLaunch launch;
    launch.kernel = kernel;
    std::string list;
    for (int argument : arguments) {
        launch.kernel += "_" + std::to_string(argument);
        list += (list.empty() ? "" : ", ") + std::to_string(argument);
    }
    const std::string function = kernel + "<" + list + ">";
    launch.instantiation = "\nnamespace tq {\ntemplate [[host_name(\"" + launch.kernel + "\")]] [[kernel]] decltype(" +
                           function + ") " + function + ";\n}\n";
    return launch;
}

void set_sizes(MetalLaunch& launch, int64_t x, int64_t y, int64_t z, int threads) {
    const int64_t grid[] = {x, y, z};
    for (int i = 0; i < 3; ++i) launch.grid[i] = static_cast<uint32_t>(grid[i]);
    launch.threads[0] = static_cast<uint32_t>(threads);
    launch.threads[1] = launch.threads[2] = 1;
}

int rows_that_fit(const MetalAttention& call) {
    int rows = kMaxAttendRows;
    while (rows > 0 && attend_bytes(call.shape.head_dim_k, call.shape.head_dim_v, call.values.bits, rows,
                                    call.keys.centered()) > kThreadgroupBytes)
        --rows;
    return rows;
}

// The kernel that attends, and the query rows of its threadgroups.
struct AttendKernel {
    const char* name;
    int rows;
    int simd_groups;
};

// attend_many from twice as many rows on as attend takes, if its threadgroup memory is enough; else attend, with as few
// tiles as can be, of even shares.
AttendKernel attend_kernel(const MetalAttention& call) {
    const AttentionShape& s = call.shape;
    const int64_t rows = s.n_tokens * (s.n_head / s.n_head_kv);
    for (int many : {kManyRows, kManyRows / 2}) {
        if (rows > 2 * kMaxAttendRows && attend_many_bytes(s.head_dim_k, s.head_dim_v, call.values.bits, many,
                                                           call.keys.centered()) <= kThreadgroupBytes)
            return {"attend_many", many, kManySimdGroups};
    }
    const int64_t most = rows_that_fit(call), tiles = (rows + most - 1) / most;
    return {"attend", static_cast<int>((rows + tiles - 1) / tiles), attend_simd_groups(s.head_dim_v)};
}

// Chunks that a stream's tokens may see, counted from the first of them.
int64_t most_chunks(const AttentionShape& s) {
    const int64_t all = (s.n_kv + kChunkCells - 1) / kChunkCells;
    if (s.window == 0) return all;
    const int64_t seen = std::min(s.n_kv, s.window + s.n_tokens);
    return std::min(all, (seen - 1) / kChunkCells + 2);
}

AttentionParams params_of(const MetalAttention& call, int rows) {
    const AttentionShape& s = call.shape;
    AttentionParams p{};
    p.q = call.q;
    p.mask = call.mask;
    p.out = call.out;
    p.k_stream_blocks = blocks_of_cells(call.k_cells);
    p.v_stream_blocks = blocks_of_cells(call.v_cells);
    p.k_record_bytes = static_cast<int64_t>(call.keys.block_bytes());
    p.v_record_bytes = static_cast<int64_t>(call.values.block_bytes());
    p.window = s.window;
    p.n_head = s.n_head;
    p.n_head_kv = s.n_head_kv;
    p.n_tokens = static_cast<int32_t>(s.n_tokens);
    p.n_stream = static_cast<int32_t>(s.n_stream);
    p.causal = s.causal;
    p.n_chunks = static_cast<int32_t>(most_chunks(s));
    p.n_row_tiles = static_cast<int32_t>((s.n_tokens * (s.n_head / s.n_head_kv) + rows - 1) / rows);
    p.q_type = static_cast<int32_t>(call.q_type);
    p.out_type = static_cast<int32_t>(call.out_type);
    p.mask_type = call.mask_type;
    p.has_sinks = call.sinks;
    p.has_k_table = call.k_table;
    p.has_v_table = call.v_table;
    p.k_rotation_stride = call.k_scaled ? 3 * s.head_dim_k : 0;
    p.v_rotation_stride = call.v_scaled ? 3 * s.head_dim_v : 0;
    p.logit_factor = s.softcap > 0 ? s.scale : s.scale * kLog2e;
    p.softcap = s.softcap;
    p.n_exact = static_cast<int32_t>(s.n_exact);
    p.hidden_words = static_cast<int32_t>((s.n_kv + 31) / 32);
    return p;
}

// Optional operands that a call has, else kBufferLengths, which every call has.
int operand_of(const MetalAttention& call, int index) {
    const bool there = index == kBufferKeyTable       ? call.k_table
                       : index == kBufferValueTable   ? call.v_table
                       : index == kBufferMask         ? call.mask_type != kMaskNone
                       : index == kBufferSinks        ? call.sinks
                       : index >= kBufferExactHidden ? call.shape.n_exact > 0
                                                      : true;
    return there ? index : kBufferLengths;
}

void bind(MetalLaunch& launch, const MetalAttention& call, std::initializer_list<int> read,
          std::initializer_list<int> written) {
    for (int index : read) launch.bindings.push_back({index, operand_of(call, index), false});
    for (int index : written) launch.bindings.push_back({index, index, true});
}

int codes_of(const RowFormat& format) {
    return format.bits + (format.trellis() ? kTrellisFlag : 0);
}

}  // namespace

std::string metal_unsupported_reason(const MetalAttention& call) {
    if (std::string reason = unsupported_reason(call.shape); !reason.empty()) return reason;
    if (call.shape.max_bias > 0) return "ALiBi slopes have no shaders: none of the models that MLX runs use them";
    if (rows_that_fit(call) == 0) {
        return "one query row of head_dim " + std::to_string(call.shape.head_dim_k) + "/" +
               std::to_string(call.shape.head_dim_v) + " needs more than the " + std::to_string(kThreadgroupBytes) +
               " bytes of threadgroup memory";
    }
    return "";
}

Result<AttentionLaunches> plan_metal_attention(const MetalAttention& call) {
    if (std::string reason = metal_unsupported_reason(call); !reason.empty())
        return Status(Error::kUnsupported, std::move(reason));
    const AttentionShape& s = call.shape;
    if (s.n_tokens <= 0 || s.n_kv <= 0 || s.n_stream <= 0)
        return Status(Error::kInvalidArgument, "n_tokens, n_kv and n_stream must be positive");
    if (call.keys.n_embd != int64_t{s.head_dim_k} * s.n_head_kv || call.values.n_embd != int64_t{s.head_dim_v} * s.n_head_kv)
        return Status(Error::kInvalidArgument, "the packed tensors are not of this head_dim and n_head_kv");

    AttentionLaunches plan;
    const AttendKernel kernel = attend_kernel(call);
    plan.params = params_of(call, kernel.rows);
    const auto n_rows = static_cast<size_t>(s.n_stream * s.n_tokens * s.n_head);
    const size_t n_partials = n_rows * static_cast<size_t>(plan.params.n_chunks);
    plan.prepared_query_bytes = n_rows * static_cast<size_t>(s.head_dim_k) * sizeof(uint16_t);
    plan.logit_scale_bytes = n_rows * sizeof(float);
    plan.partial_stats_bytes = n_partials * 2 * sizeof(float);
    plan.partial_out_bytes = n_partials * static_cast<size_t>(s.head_dim_v) * sizeof(float);

    MetalLaunch prepare = launch_of("prepare", {s.head_dim_k});
    set_sizes(prepare, s.n_head, s.n_tokens, s.n_stream, 32);
    bind(prepare, call, {kBufferParams, kBufferLengths, kBufferQuery, kBufferKeyRotation},
         {kBufferPreparedQuery, kBufferLogitScale});
    plan.launches.push_back(std::move(prepare));

    MetalLaunch attend = launch_of(kernel.name, {s.head_dim_k, s.head_dim_v, codes_of(call.keys), codes_of(call.values), kernel.rows,
                                                 call.keys.centered()});
    set_sizes(attend, int64_t{s.n_head_kv} * plan.params.n_row_tiles, plan.params.n_chunks, s.n_stream,
              32 * kernel.simd_groups);
    bind(attend, call,
         {kBufferParams, kBufferLengths, kBufferKeys, kBufferValues, kBufferKeyTable, kBufferValueTable, kBufferMask,
          kBufferPreparedQuery, kBufferLogitScale, kBufferExactHidden},
         {kBufferPartialStats, kBufferPartialOut});
    plan.launches.push_back(std::move(attend));

    MetalLaunch merge = launch_of("merge", {s.head_dim_k, s.head_dim_v});
    set_sizes(merge, s.n_head, s.n_tokens, s.n_stream, 32);
    bind(merge, call,
         {kBufferParams, kBufferLengths, kBufferQuery, kBufferSinks, kBufferValueRotation, kBufferLogitScale,
          kBufferPartialStats, kBufferPartialOut, kBufferMask, kBufferExactList, kBufferExactKeys, kBufferExactValues},
         {kBufferOut});
    plan.launches.push_back(std::move(merge));
    return plan;
}

std::string metal_unsupported_reason(const MetalRows& rows) {
    if (rows.head_dim < kMinHeadDim || rows.head_dim > kMaxHeadDim || rows.head_dim % kStepDims != 0)
        return "head_dim " + std::to_string(rows.head_dim) + " is not a multiple of 16 in 16..512";
    return "";
}

namespace {

Result<RowsLaunch> plan_rows(const MetalRows& rows, const char* kernel) {
    if (std::string reason = metal_unsupported_reason(rows); !reason.empty())
        return Status(Error::kUnsupported, std::move(reason));
    if (rows.n_rows <= 0 || rows.n_stream <= 0)
        return Status(Error::kInvalidArgument, "n_rows and n_stream must be positive");
    if (rows.format.n_embd % rows.head_dim != 0)
        return Status(Error::kInvalidArgument, "n_embd " + std::to_string(rows.format.n_embd) +
                                                   " is not a multiple of head_dim " + std::to_string(rows.head_dim));
    RowsLaunch plan;
    plan.params.rows = rows.rows;
    plan.params.stream_blocks = blocks_of_cells(rows.n_cells);
    plan.params.record_bytes = static_cast<int64_t>(rows.format.block_bytes());
    plan.params.n_head_kv = static_cast<int32_t>(rows.format.n_embd / rows.head_dim);
    plan.params.type = static_cast<int32_t>(rows.type);
    plan.params.has_table = rows.table;
    plan.params.rotation_stride = rows.scaled ? 3 * rows.head_dim : 0;
    plan.launch = launch_of(kernel, {rows.head_dim, codes_of(rows.format), rows.format.side == Side::kKey ? 0 : 1,
                                     rows.format.centered()});
    for (int index : {kBufferParams, kBufferLengths, kBufferRows, kBufferRecords, kBufferTable, kBufferRotation})
        plan.launch.bindings.push_back({index, index == kBufferTable && !rows.table ? kBufferLengths : index, false});
    return plan;
}

}  // namespace

Result<RowsLaunch> plan_metal_append(const MetalRows& rows) {
    Result<RowsLaunch> plan = plan_rows(rows, "append");
    if (!plan.ok()) return plan;
    const int slice = dims_of_slice(rows.format.side, rows.head_dim);
    const int64_t n_blocks = rows.format.centered() ? 1 : (rows.n_rows + kBlockCells - 2) / kBlockCells + 1;
    set_sizes(plan.value().launch, (rows.format.n_embd + slice - 1) / slice, n_blocks, rows.n_stream,
              32 * append_simd_groups(slice));
    plan.value().launch.bindings[kBufferRecords].written = true;
    return plan;
}

Result<RowsLaunch> plan_metal_decode(const MetalRows& rows) {
    Result<RowsLaunch> plan = plan_rows(rows, "decode");
    if (!plan.ok()) return plan;
    set_sizes(plan.value().launch, rows.format.n_embd / rows.head_dim, (rows.n_rows + kDecodeCells - 1) / kDecodeCells,
              rows.n_stream, 32 * kDecodeCells);
    plan.value().launch.bindings[kBufferRows].written = true;
    return plan;
}

std::vector<float> metal_rotation(const std::vector<Rotation>& rotations) {
    std::vector<float> rows;
    for (const Rotation& r : rotations) {
        for (const std::vector<float>* diagonal : {&r.first, &r.first_inverse, &r.second})
            rows.insert(rows.end(), diagonal->begin(), diagonal->end());
    }
    return rows;
}

}  // namespace tq
