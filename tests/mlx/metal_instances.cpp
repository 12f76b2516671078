// Prints the shader text that metal_nodes_test compiles: what the nodes ask a Metal device for, in all cases.
#include <cstdio>

#include "metal_graph.h"
#include "turboquant/metal/launch.h"

int main() {
    tq::test::on_gpu = true;
    for (const tq::test::MetalCase& c : tq::test::metal_cases()) tq::test::run_case(c);
    std::fputs(tq::metal_source().c_str(), stdout);
    for (const auto& [name, text] : tq::test::compiled_libraries())
        std::fputs(text.c_str() + tq::metal_source().size(), stdout);
}
