#include <cstdlib>

#include <gtest/gtest.h>

int main(int argc, char** argv) {
    setenv("GGML_BACKEND_PATH", TQ_E2E_PLUGIN, 0);
    setenv("TURBOQUANT_KV", "k4v4",
           0);  // not the default: many tests compare with the decoded cache, which knows no exact cells
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
