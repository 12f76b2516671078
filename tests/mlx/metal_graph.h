// Evaluates graphs whose nodes of ours run on the fake Metal device, all others on MLX's CPU.
#pragma once

#include <set>

#include "metal_cases.h"
#include "mlx/backend/metal/device.h"

namespace tq::test {

inline void run_ours(const mx::array& array, std::set<uintptr_t>& seen) {
    if (!array.has_primitive() || array.status() != mx::array::Status::unscheduled || !seen.insert(array.id()).second)
        return;
    const std::vector<mx::array> inputs = array.inputs();
    for (const mx::array& input : inputs) run_ours(input, seen);
    auto* node = dynamic_cast<Node*>(&array.primitive());
    if (!node) return;
    mx::eval(inputs);
    std::vector<mx::array> outputs = array.outputs();
    node->eval_gpu(inputs, outputs);
    for (mx::array& output : outputs) {
        output.set_status(mx::array::Status::available);
        output.detach();
    }
}

inline void evaluate(std::vector<mx::array> arrays) {
    std::set<uintptr_t> seen;
    if (on_gpu) {
        for (const mx::array& array : arrays) run_ours(array, seen);
    }
    mx::eval(std::move(arrays));
}

// What the nodes give.
struct MetalResult {
    std::vector<mx::array> arrays;
};

// Cells are stored, new ones behind them, attended to, and decoded.
inline MetalResult run_case(const MetalCase& c) {
    const MetalProblem problem(c);
    std::vector<mx::array> records;
    std::vector<std::optional<mx::array>> before;
    std::vector<mx::array> results;
    for (Side side : {Side::kKey, Side::kValue}) {
        Appended old{problem.empty_records(side), problem.empty_exact(side)};
        if (std::ranges::max(c.before) > 0)
            old = append(problem.codec, problem.old_call(side), old.records, problem.old_rows(side), old.exact);
        before.push_back(old.exact);
        Appended now = append(problem.codec, problem.append_call(side), old.records, problem.new_rows(side), old.exact);
        evaluate(now.exact ? std::vector{now.records, *now.exact} : std::vector{now.records});
        records.push_back(now.records);
        results.push_back(now.records);
        if (now.exact) results.push_back(*now.exact);

        DecodeCall decoding{side, problem.n_kv(), {}, {}};
        for (const StreamCells& stream : problem.attend_call().streams) {
            decoding.length.push_back(stream.n_kv);
            decoding.first_exact.push_back(std::max<int64_t>(0, stream.n_kv - problem.codec->exact().n_kept()));
        }
        results.push_back(decode(problem.codec, decoding, now.records, c.half ? mx::float16 : mx::float32, now.exact));
    }
    results.push_back(attend(problem.codec, problem.attend_call(),
                             problem.attend_inputs(records[0], records[1], before[0], before[1])));
    evaluate(results);
    return {results};
}

}  // namespace tq::test
