#include "cpu_device.h"

#include <cstdlib>
#include <string_view>

namespace tq::tool {

Result<ggml_backend_dev_t> cpu_device() {
    unsetenv("GGML_BACKEND_PATH");  // ggml would load that plugin for everyone
    if (!ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)) ggml_backend_load_all_from_path(TQ_LLAMA_DIR);
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!cpu) return Status(Error::kUnsupported, "ggml has no CPU backend in " TQ_LLAMA_DIR);
    return cpu;
}

std::vector<std::string> cpu_features(ggml_backend_dev_t cpu) {
    std::vector<std::string> features;
    const ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(cpu);
    const auto get = reinterpret_cast<ggml_backend_get_features_t>(
        ggml_backend_reg_get_proc_address(registry, "ggml_backend_get_features"));
    if (!get) return features;
    for (const ggml_backend_feature* feature = get(registry); feature->name; ++feature) {
        if (std::string_view(feature->value) == "1") features.emplace_back(feature->name);
    }
    return features;
}

}  // namespace tq::tool
