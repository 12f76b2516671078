// An attention call by the shaders.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "metal_run.h"
#include "tests/support/attention_problem.h"
#include "turboquant/attention/cell_range.h"
#include "turboquant/metal/launch.h"

namespace tq::test {

inline RowStrides strides_in_elements(size_t stream, size_t token, size_t head, size_t element) {
    const auto n = [&](size_t bytes) { return static_cast<int64_t>(bytes / element); };
    return {n(stream), n(token), n(head)};
}

inline MetalAttention metal_call(const AttentionShape& s, const AttentionInputs& in) {
    MetalAttention call;
    call.shape = s;
    call.keys = in.k.codec->format();
    call.values = in.v.codec->format();
    call.q_type = in.q_type;
    call.out_type = in.out_type;
    call.mask_type = in.mask ? kMaskF16 : kMaskNone;
    call.q = strides_in_elements(in.q_stream_stride, in.q_token_stride, in.q_head_stride, bytes_of(in.q_type));
    call.mask = strides_in_elements(in.mask_stream_stride, in.mask_token_stride, 0, sizeof(uint16_t));
    call.out =
        strides_in_elements(in.out_stream_stride, in.out_token_stride, in.out_head_stride, bytes_of(in.out_type));
    call.k_cells = in.k.n_cells;
    call.v_cells = in.v.n_cells;
    call.k_table = in.k.block_table != nullptr;
    call.v_table = in.v.block_table != nullptr;
    call.sinks = in.sinks != nullptr;
    return call;
}

// Exact rows as the shaders take them: the rows of all lists side by side, and a bit for each cell that they hide.
struct MetalExact {
    std::vector<ExactEntry> list;
    std::vector<uint32_t> hidden;
    std::vector<uint16_t> keys, values;

    MetalExact(const AttentionShape& s, const AttentionInputs& in, const AttentionParams& p) {
        hidden.assign(static_cast<size_t>(s.n_stream * s.n_tokens * p.hidden_words), 0);
        for (int64_t row = 0; row < s.n_stream * s.n_tokens; ++row)
            add_token(s, in, p, row / s.n_tokens, row % s.n_tokens);
    }

  private:
    void add_token(const AttentionShape& s, const AttentionInputs& in, const AttentionParams& p, int64_t stream,
                   int64_t token) {
        const size_t begin = list.size();
        const StreamLengths lengths = lengths_of_stream(s, in, stream);
        const CellRange cells = cells_of_token(s, lengths, token);
        const uint16_t* mask =
            in.mask ? at_byte(in.mask, stream * in.mask_stream_stride + token * in.mask_token_stride) : nullptr;
        const auto visible = [&](int64_t cell) {
            return cell >= cells.first && cell < cells.end && (!mask || mask[cell] != kHalfMinusInfinity);
        };
        const auto append = [](std::vector<uint16_t>& rows, const uint16_t* row, int64_t width) {
            rows.insert(rows.end(), row, row + width);
            return static_cast<int32_t>(static_cast<int64_t>(rows.size()) / width - 1);
        };
        if (token < lengths.n_tokens) {
            for_exact_rows(*in.exact_k, *in.exact_v, in.k_first_stream + stream, in.v_first_stream + stream, token,
                           lengths.n_tokens, visible, [&](const ExactRow& row) {
                               const int32_t k = append(keys, row.k, in.k.codec->format().n_embd);
                               const int32_t v = append(values, row.v, in.v.codec->format().n_embd);
                               list.push_back({k, v, static_cast<int32_t>(row.cell)});
                               hidden[(stream * s.n_tokens + token) * p.hidden_words + row.cell / 32] |=
                                   1u << row.cell % 32;
                           });
        }
        list.resize(begin + static_cast<size_t>(p.n_exact), {-1, -1, -1});
    }
};

// What a call has that AttentionInputs cannot say, or whose size it does not know.
struct MetalOptions {
    AttentionProblem::Change change = {};   // as for AttentionProblem::run
    int mask_type = -1;                     // -1: f16, or none
    std::map<int, MetalArray> arrays = {};  // in place of the problem's
    bool check = true;
    MetalFaults* faults = nullptr;
};

// The problem's output by the shaders.
inline std::vector<float> run_on_metal(const msl_library& library, const AttentionProblem& problem,
                                       const MetalOptions& options = {}) {
    AttentionShape s = problem.shape();
    std::vector<float> out = problem.empty_output();
    AttentionInputs in = problem.inputs(problem.keys().codec, problem.values().codec, out);
    if (options.change) options.change(s, in);
    MetalAttention call = metal_call(s, in);
    if (options.mask_type >= 0) call.mask_type = options.mask_type;
    call.k_scaled = call.v_scaled = problem.description().scaled;
    const Result<AttentionLaunches> planned = plan_metal_attention(call);
    if (!planned.ok()) {
        ADD_FAILURE() << planned.status().message();
        return out;
    }
    const AttentionLaunches& plan = planned.value();

    std::vector<int32_t> lengths;
    for (int64_t stream = 0; stream < s.n_stream; ++stream) {
        lengths.push_back(static_cast<int32_t>(in.n_kv_of_stream ? in.n_kv_of_stream[stream] : s.n_kv));
        lengths.push_back(static_cast<int32_t>(in.n_tokens_of_stream ? in.n_tokens_of_stream[stream] : s.n_tokens));
    }
    std::vector<float> rotations[2];
    for (const auto& [side, codec] : {std::pair{0, in.k.codec}, std::pair{1, in.v.codec}}) {
        std::vector<Rotation> heads;
        for (int head = 0; head < (call.k_scaled ? s.n_head_kv : 1); ++head) heads.push_back(codec->rotation(head));
        rotations[side] = metal_rotation(heads);
    }
    const auto first_record = [](const PackedTensor& t, int64_t stream) {
        return t.records + static_cast<size_t>(t.block_table ? 0 : stream * blocks_of_cells(t.n_cells)) *
                               t.codec->format().block_bytes();
    };
    const auto record_bytes = [&](const PackedTensor& t, int64_t stream) {
        const size_t all = static_cast<size_t>(t.n_records) * t.codec->format().block_bytes();
        return all - static_cast<size_t>(first_record(t, stream) - t.records);
    };
    const auto table_bytes = [&](const PackedTensor& t, int64_t stream) {
        return sizeof(int32_t) * static_cast<size_t>((t.n_stream - stream) * blocks_of_cells(t.n_cells));
    };

    MetalRun run(library, options.faults);
    run.check = options.check;
    run.give(kBufferParams, &plan.params, sizeof plan.params);
    run.give(kBufferLengths, lengths.data(), lengths.size() * sizeof(int32_t));
    run.give(kBufferQuery, problem.q.data(), problem.q.size() * sizeof(float));
    run.give(kBufferKeys, first_record(in.k, in.k_first_stream), record_bytes(in.k, in.k_first_stream));
    run.give(kBufferValues, first_record(in.v, in.v_first_stream), record_bytes(in.v, in.v_first_stream));
    if (call.k_table)
        run.give(kBufferKeyTable, in.k.block_table + in.k_first_stream * blocks_of_cells(in.k.n_cells),
                 table_bytes(in.k, in.k_first_stream));
    if (call.v_table)
        run.give(kBufferValueTable, in.v.block_table + in.v_first_stream * blocks_of_cells(in.v.n_cells),
                 table_bytes(in.v, in.v_first_stream));
    run.give(kBufferMask, in.mask, problem.mask.size() * sizeof(uint16_t));
    run.give(kBufferSinks, in.sinks, problem.sinks.size() * sizeof(float));
    run.give(kBufferKeyRotation, rotations[0].data(), rotations[0].size() * sizeof(float));
    run.give(kBufferValueRotation, rotations[1].data(), rotations[1].size() * sizeof(float));
    run.make(kBufferPreparedQuery, plan.prepared_query_bytes);
    run.make(kBufferLogitScale, plan.logit_scale_bytes);
    run.make(kBufferPartialStats, plan.partial_stats_bytes);
    run.make(kBufferPartialOut, plan.partial_out_bytes);
    run.give(kBufferOut, out.data(), out.size() * sizeof(float));
    std::optional<MetalExact> exact;
    if (s.n_exact > 0) {
        exact.emplace(s, in, plan.params);
        run.give(kBufferExactHidden, exact->hidden.data(), exact->hidden.size() * sizeof(uint32_t));
        run.give(kBufferExactList, exact->list.data(), exact->list.size() * sizeof(ExactEntry));
        run.give(kBufferExactKeys, exact->keys.data(), exact->keys.size() * sizeof(uint16_t));
        run.give(kBufferExactValues, exact->values.data(), exact->values.size() * sizeof(uint16_t));
    }
    for (const auto& [operand, array] : options.arrays) run.arrays[operand] = array;
    for (const MetalLaunch& launch : plan.launches) run.launch(launch);
    return out;
}

}  // namespace tq::test
