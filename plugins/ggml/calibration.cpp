#include "calibration.h"

#include <algorithm>
#include <fstream>
#include <memory>

#include <fmt/format.h>
#include <gguf.h>

#include "log.h"
#include "turboquant/format/channel_scales.h"
#include "turboquant/format/rotation.h"

namespace tq::plugin {
namespace {

constexpr size_t kMaxScales = size_t{1} << 20;  // scales that a row may have: far beyond any model

using Gguf = std::unique_ptr<gguf_context, decltype(&gguf_free)>;

Status invalid(const std::string& file, const std::string& what) {
    return Status(Error::kInvalidArgument, file + ": " + what);
}

bool is_known_format(const gguf_context* gguf) {
    const int64_t id = gguf_find_key(gguf, kCalibrationFormatKey);
    return id >= 0 && gguf_get_kv_type(gguf, id) == GGUF_TYPE_UINT32 &&
           gguf_get_val_u32(gguf, id) == kCalibrationFormat;
}

std::string string_or_empty(const gguf_context* gguf, const char* key) {
    const int64_t id = gguf_find_key(gguf, key);
    return id >= 0 && gguf_get_kv_type(gguf, id) == GGUF_TYPE_STRING ? gguf_get_val_str(gguf, id) : "";
}

// Says what is wrong with tensor i, or "".
std::string read_scales(const gguf_context* gguf, int64_t i, std::ifstream& in, std::vector<float>& scales) {
    const size_t bytes = gguf_get_tensor_size(gguf, i);
    if (gguf_get_tensor_type(gguf, i) != GGML_TYPE_F32 || bytes > kMaxScales * sizeof(float))
        return "is not a row of f32 scales";
    scales.resize(bytes / sizeof(float));
    in.seekg(static_cast<std::streamoff>(gguf_get_data_offset(gguf) + gguf_get_tensor_offset(gguf, i)));
    in.read(reinterpret_cast<char*>(scales.data()), static_cast<std::streamsize>(bytes));
    if (!in) return "is not all there: the file is truncated";
    const auto allowed = [](float scale) { return scale >= kMinChannelScale && scale <= kMaxChannelScale; };
    return std::all_of(scales.begin(), scales.end(), allowed) ? "" : "has scales beyond 1/64 to 64";
}

}  // namespace

Result<std::shared_ptr<const Calibration>> Calibration::read(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    if (!in) return invalid(file, "can't be read");
    const Gguf gguf(gguf_init_from_file(file.c_str(), {/*no_alloc=*/true, /*ctx=*/nullptr}), gguf_free);
    if (!gguf) return invalid(file, "not a readable GGUF file");
    if (!is_known_format(gguf.get())) {
        return invalid(file, fmt::format("not a calibration of this version ({} is not {}); tq calibrate writes one",
                                         kCalibrationFormatKey, kCalibrationFormat));
    }
    Calibration calibration;
    calibration.file_ = file;
    calibration.model_ = string_or_empty(gguf.get(), kCalibrationModelKey);
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf.get()); ++i) {
        const char* name = gguf_get_tensor_name(gguf.get(), i);
        const std::string problem = read_scales(gguf.get(), i, in, calibration.tensors_[name]);
        if (!problem.empty()) return invalid(file, fmt::format("tensor {} {}", name, problem));
    }
    return std::make_shared<const Calibration>(std::move(calibration));
}

std::span<const float> Calibration::scales(int layer, Side side, bool centered, int64_t n_embd) const {
    const std::string name = channel_scales_name(layer, side, centered);
    const auto found = tensors_.find(name);
    if (found != tensors_.end() && found->second.size() == static_cast<size_t>(n_embd)) return found->second;
    log_once(GGML_LOG_LEVEL_WARN,
             fmt::format("{} has no {} scales {}: that cache tensor is stored without; is it another model's?", file_,
                         n_embd, name));
    return {};
}

std::string Calibration::description() const {
    return model_.empty() ? file_ : fmt::format("{} ({})", file_, model_);
}

}  // namespace tq::plugin
