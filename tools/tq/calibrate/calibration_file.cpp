#include "calibrate/calibration_file.h"

#include <algorithm>
#include <memory>

#include <ggml.h>
#include <gguf.h>

#include "turboquant/format/channel_scales.h"

namespace tq::tool {

Status write_calibration(const CalibrationFile& calibration, const std::string& file) {
    size_t bytes = 0;
    for (const auto& [name, scales] : calibration.tensors)
        bytes += ggml_tensor_overhead() + scales.size() * sizeof(float) + 64;
    const std::unique_ptr<ggml_context, decltype(&ggml_free)> memory(ggml_init({bytes, nullptr, /*no_alloc=*/false}),
                                                                     ggml_free);
    const std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(gguf_init_empty(), gguf_free);
    if (!memory || !gguf) return Status(Error::kOutOfMemory, "no memory for " + file);
    gguf_set_val_str(gguf.get(), "general.type", "calibration");
    gguf_set_val_u32(gguf.get(), kCalibrationFormatKey, kCalibrationFormat);
    gguf_set_val_str(gguf.get(), kCalibrationModelKey, calibration.model.c_str());
    gguf_set_val_str(gguf.get(), "turboquant.calibration.text", calibration.text.c_str());
    gguf_set_val_u32(gguf.get(), "turboquant.calibration.tokens", static_cast<uint32_t>(calibration.n_tokens));
    for (const auto& [name, scales] : calibration.tensors) {
        ggml_tensor* tensor = ggml_new_tensor_2d(memory.get(), GGML_TYPE_F32, static_cast<int64_t>(scales.size()), 1);
        std::copy(scales.begin(), scales.end(), static_cast<float*>(tensor->data));
        ggml_set_name(tensor, name.c_str());
        gguf_add_tensor(gguf.get(), tensor);
    }
    if (!gguf_write_to_file(gguf.get(), file.c_str(), /*only_meta=*/false)) {
        return Status(Error::kInvalidArgument, file + ": can't be written");
    }
    return {};
}

}  // namespace tq::tool
