#include "calibrate/calibration_file.h"

#include <algorithm>
#include <memory>

#include "ggml_api.h"
#include "turboquant/codec/channel_scales.h"

namespace tq::tool {

Status write_calibration(const CalibrationFile& calibration, const std::string& file) {
    const GgmlApi& ggml = *ggml_api().value();   // the model has been read with it
    size_t bytes = 0;
    for (const auto& [name, scales] : calibration.tensors) bytes += ggml.tensor_overhead() + scales.size() * sizeof(float) + 64;
    const std::unique_ptr<ggml_context, decltype(&ggml_free)> memory(ggml.init({bytes, nullptr, /*no_alloc=*/false}), ggml.free);
    const std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(ggml.gguf.init_empty(), ggml.gguf.free);
    if (!memory || !gguf) return Status(Error::kOutOfMemory, "no memory for " + file);
    ggml.gguf.set_val_str(gguf.get(), "general.type", "calibration");
    ggml.gguf.set_val_u32(gguf.get(), kCalibrationFormatKey, kCalibrationFormat);
    ggml.gguf.set_val_str(gguf.get(), kCalibrationModelKey, calibration.model.c_str());
    ggml.gguf.set_val_str(gguf.get(), "turboquant.calibration.text", calibration.text.c_str());
    ggml.gguf.set_val_u32(gguf.get(), "turboquant.calibration.tokens", static_cast<uint32_t>(calibration.n_tokens));
    for (const auto& [name, scales] : calibration.tensors) {
        ggml_tensor* tensor = ggml.new_tensor_2d(memory.get(), GGML_TYPE_F32, static_cast<int64_t>(scales.size()), 1);
        std::copy(scales.begin(), scales.end(), static_cast<float*>(tensor->data));
        ggml.set_name(tensor, name.c_str());
        ggml.gguf.add_tensor(gguf.get(), tensor);
    }
    if (!ggml.gguf.write_to_file(gguf.get(), file.c_str(), /*only_meta=*/false)) {
        return Status(Error::kInvalidArgument, file + ": can't be written");
    }
    return {};
}

}  // namespace tq::tool
