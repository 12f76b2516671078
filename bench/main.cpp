#include "micro.h"

int main(int argc, char** argv) {
    tq::bench::register_attention();
    tq::bench::register_cache();
    tq::bench::register_codec();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}
