// Prints the shader text that the tests compile: all shaders, and an instance for each shape of theirs. Argument:
// attention, rows, nvidia or faults.
#include <cstdio>
#include <cstring>
#include <set>
#include <string>

#include "attention_shapes.h"
#include "metal_attention.h"
#include "nvidia/cases.h"
#include "row_shapes.h"
#include "shader_faults.h"

namespace tq::test {
namespace {

using Instances = std::set<std::string>;

void add_attention(Instances& instances, const std::vector<AttentionCase>& cases) {
    for (AttentionCase c : cases) {
        c.n_kv = std::max<int64_t>(c.n_tokens, 1);  // no matter for what is compiled
        const AttentionProblem problem(c);
        std::vector<float> out = problem.empty_output();
        const auto plan = plan_metal_attention(
            metal_call(problem.shape(), problem.inputs(problem.keys().codec, problem.values().codec, out)));
        for (const MetalLaunch& launch : plan.value().launches) instances.insert(launch.instantiation);
    }
}

void add_rows(Instances& instances, const std::vector<PackedShape>& shapes) {
    for (const PackedShape& shape : shapes) {
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
    using namespace tq::test;
    if (std::strcmp(argv[1], "attention") == 0) {
        add_attention(instances, metal_attention_cases());
        add_attention(instances, varied_attention_cases());
        add_attention(instances, {long_attention_case()});
    } else if (std::strcmp(argv[1], "rows") == 0) {
        add_rows(instances, metal_row_shapes());
    } else if (std::strcmp(argv[1], "nvidia") == 0) {
        add_attention(instances, nvidia_attention_cases());
        add_rows(instances, nvidia_row_shapes());
    } else {
        add_attention(instances, shader_fault_attention_cases());
        add_rows(instances, shader_fault_row_shapes());
    }
    std::fputs(tq::metal_source().c_str(), stdout);
    for (const std::string& instance : instances) std::fputs(instance.c_str(), stdout);
}
