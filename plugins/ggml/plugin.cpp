// The entry point: libggml-turboquant.so, loaded by ggml through GGML_BACKEND_PATH.
#include <string>

#include "device.h"
#include "guard.h"
#include "log.h"

namespace tq::plugin {
namespace {

ggml_backend_reg_t init() {
    const int api = host_api_version();
    if (api == 0) {
        log(GGML_LOG_LEVEL_ERROR,
            "the host has no CPU backend yet, which does all that is not attention; device not registered");
        return nullptr;
    }
    if ((api != 2 && api != 3) || !host_is_compatible()) {
        log(GGML_LOG_LEVEL_ERROR, std::string("this ggml (") + ggml_version() + ", backend API " + std::to_string(api) +
                                      ") is not one that the plugin knows (API 2 and 3); device not registered");
        return nullptr;
    }
    Result<Config> config = Config::from_environment();
    if (!config.ok()) {
        log(GGML_LOG_LEVEL_ERROR, config.status().message() + "; device not registered");
        return nullptr;
    }
    log(GGML_LOG_LEVEL_INFO,
        std::string("KV cache ") + config->description() + " (plugin " + kVersion + ", ggml " + ggml_version() + ")");
    return make_registry(api, config.value());
}

}  // namespace
}  // namespace tq::plugin

extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init() {
    return tq::plugin::guarded("loading the plugin", ggml_backend_reg_t{}, tq::plugin::init);
}
