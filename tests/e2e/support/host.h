// The host's side of a test: what it logged, the device that the plugin registered, and what is there to test with.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include <ggml-backend.h>
#include <gtest/gtest.h>

namespace tq::e2e {

// Skips the test if a file that scripts/test makes is not there; fails it where that must not happen (TQ_REQUIRE_E2E).
#define TQ_NEEDS_FILE(path)                                                                       \
    if (access((path), R_OK) != 0) {                                                              \
        if (std::getenv("TQ_REQUIRE_E2E")) FAIL() << (path) << " is not there: run scripts/test"; \
        GTEST_SKIP() << (path) << " is not there: run scripts/test";                              \
    }                                                                                             \
    static_assert(true, "")

// Keeps what ggml, llama.cpp and the plugin log from here on, and forgets what was kept before.
void capture_log();
std::vector<std::string> logged();
int count_logged(const std::string& part);

// Loads the plugin as GGML_BACKEND_PATH does. Null: it refused to register.
ggml_backend_dev_t load_plugin();

// A backend of the plugin's device, and ggml's CPU backend; each made once.
ggml_backend_t plugin_backend();
ggml_backend_t cpu_backend();

// MiB of each "KV buffer size" line that llama.cpp has logged.
std::vector<double> kv_buffer_mib();

// Resident memory of this process, in MiB.
double resident_mib();

// Runs fn in a child process with these environment variables set ("NAME=value") and returns its exit status (-1:
// killed by a signal) and what it logged. fn says whether all was well.
struct ChildResult {
    int status = -1;
    std::string log;
};
ChildResult in_child(const std::vector<std::string>& environment, bool (*fn)());

}  // namespace tq::e2e
