// Prints the shader text that the tests compile: all shaders, and an instance for each shape of theirs. Argument:
// attention or rows.
#include <cstdio>
#include <cstring>
#include <set>
#include <string>

#include "attention_shapes.h"
#include "metal_attention.h"
#include "row_shapes.h"

namespace tq::test {
namespace {

using Instances = std::set<std::string>;

void add_attention(Instances& instances) {
    std::vector<AttentionCase> cases = metal_attention_cases();
    for (const AttentionCase& c : varied_attention_cases()) cases.push_back(c);
    cases.push_back(long_attention_case());
    for (AttentionCase c : cases) {
        c.n_kv = std::max<int64_t>(c.n_tokens, 1);  // no matter for what is compiled
        const AttentionProblem problem(c);
        std::vector<float> out = problem.empty_output();
        const auto plan = plan_metal_attention(
            metal_call(problem.shape(), problem.inputs(problem.keys().codec, problem.values().codec, out)));
        for (const MetalLaunch& launch : plan.value().launches) instances.insert(launch.instantiation);
    }
}

void add_rows(Instances& instances) {
    for (const PackedShape& shape : metal_row_shapes()) {
        const MetalRows rows = metal_rows(shape);
        for (const auto& plan : {plan_metal_append(rows), plan_metal_decode(rows)})
            instances.insert(plan.value().launch.instantiation);
    }
}

}  // namespace
}  // namespace tq::test

int main(int argc, char** argv) {
    if (argc != 2) return 1;
    tq::test::Instances instances;
    if (std::strcmp(argv[1], "attention") == 0)
        tq::test::add_attention(instances);
    else
        tq::test::add_rows(instances);
    std::fputs(tq::metal_source().c_str(), stdout);
    for (const std::string& instance : instances) std::fputs(instance.c_str(), stdout);
}
