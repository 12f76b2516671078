// The entry point: libggml-turboquant.so, loaded by ggml through GGML_BACKEND_PATH.
#include <cstdio>

#include "device.h"
#include "log.h"

namespace tq::plugin {
namespace {

// GGML_BACKEND_API_VERSION by ggml release; 0 if unknown. The host refuses any other number.
int api_version_of(const char* ggml_version) {
    int major = 0, minor = 0;
    if (std::sscanf(ggml_version, "%d.%d", &major, &minor) != 2 || major != 0) return 0;
    if (minor < 21) return 0;
    return minor < 26 ? 2 : 3;
}

ggml_backend_reg_t init() {
    const int api = api_version_of(ggml_version());
    if (api == 0 || !host_is_compatible()) {
        log(GGML_LOG_LEVEL_ERROR, std::string("this ggml (") + ggml_version() + ") is not one that the plugin knows; device not registered");
        return nullptr;
    }
    Result<Config> config = Config::from_environment();
    if (!config.ok()) {
        log(GGML_LOG_LEVEL_ERROR, config.status().message() + "; device not registered");
        return nullptr;
    }
    log(GGML_LOG_LEVEL_INFO, std::string("KV cache ") + config->description() + " (plugin " + kVersion + ", ggml " + ggml_version() + ")");
    return make_registry(api, config.value());
}

}  // namespace
}  // namespace tq::plugin

extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init() { return tq::plugin::init(); }
