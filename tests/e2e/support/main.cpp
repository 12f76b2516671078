#include <cstdlib>

#include <gtest/gtest.h>

int main(int argc, char** argv) {
    setenv("GGML_BACKEND_PATH", TQ_E2E_PLUGIN, 0);
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
