// Writes what the plugin reads (plugins/ggml/calibration.h): a GGUF file of channel scales.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "turboquant/base/status.h"

namespace tq::tool {

struct CalibrationFile {
    std::string model;  // the model's name, which people read
    std::string text;
    int n_tokens = 0;
    std::map<std::string, std::vector<float>> tensors;  // by name, channel_scales_name() of format/channel_scales.h
};

// Error: kInvalidArgument if the file can't be written; kOutOfMemory.
Status write_calibration(const CalibrationFile& calibration, const std::string& file);

}  // namespace tq::tool
