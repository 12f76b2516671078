// A library that is loaded before llama.cpp's own test programs (LD_PRELOAD), so that they run unmodified on the
// device.

#include <dlfcn.h>

#include <cstdlib>

#include "ggml-backend.h"
#include "llama.h"

namespace {

// test-llama-archs is the one program that does not ask ggml for the backends of GGML_BACKEND_PATH.
[[gnu::constructor]] void load_backends() {
    ggml_backend_load_all();
}

}  // namespace

// test-save-load-state switches flash attention off in one of its tests, which the device refuses on purpose. With
// TQ_TEST_FLASH_ATTENTION set that test runs as well: what it says of states does not depend on it.
extern "C" llama_context* llama_init_from_model(llama_model* model, llama_context_params params) {
    if (std::getenv("TQ_TEST_FLASH_ATTENTION") != nullptr) {
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    }
    static const auto original =
        reinterpret_cast<decltype(&llama_init_from_model)>(dlsym(RTLD_NEXT, "llama_init_from_model"));
    return original(model, params);
}
