// Prints the shader text that the tests compile: all shaders, and an instance for each shape of theirs.
#include <cstdio>
#include <set>
#include <string>

#include "metal_attention.h"
#include "attention_shapes.h"
#include "row_shapes.h"

int main() {
    using namespace tq::test;
    std::set<std::string> instances;
    std::vector<AttentionCase> cases = metal_attention_cases();
    for (const AttentionCase& c : varied_attention_cases()) cases.push_back(c);
    cases.push_back(long_attention_case());
    for (AttentionCase c : cases) {
        c.n_kv = std::max<int64_t>(c.n_tokens, 1);  // no matter for what is compiled
        const AttentionProblem problem(c);
        std::vector<float> out = problem.empty_output();
        const auto plan = tq::plan_metal_attention(
            metal_call(problem.shape(), problem.inputs(problem.keys().codec, problem.values().codec, out)));
        if (!plan.ok()) {
            std::fprintf(stderr, "%s\n", plan.status().message().c_str());
            return 1;
        }
        for (const tq::MetalLaunch& launch : plan.value().launches) instances.insert(launch.instantiation);
    }
    for (const PackedShape& shape : metal_row_shapes()) {
        const tq::MetalRows rows = metal_rows(shape);
        for (const auto& plan : {plan_metal_append(rows), plan_metal_decode(rows)})
            instances.insert(plan.value().launch.instantiation);
    }
    std::fputs(tq::metal_source().c_str(), stdout);
    for (const std::string& instance : instances) std::fputs(instance.c_str(), stdout);
}
