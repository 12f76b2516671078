// A model's channel scales (turboquant/format/rotation.h), from a GGUF file that `tq calibrate` wrote.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "turboquant/base/status.h"
#include "turboquant/format/preset.h"

namespace tq::plugin {

class Calibration {
  public:
    // Files are not trusted. Error: kInvalidArgument; the message starts with the file's name.
    static Result<std::shared_ptr<const Calibration>> read(const std::string& file);

    // n_embd scales for a layer's rows. None (and why is logged, once) where the file has none of that width: a cache
    // is correct with any scales, only less exact with ones that are not its own.
    std::span<const float> scales(int layer, Side side, bool centered, int64_t n_embd) const;

    // The file's name and the model's.
    std::string description() const;

  private:
    std::string file_, model_;
    std::map<std::string, std::vector<float>> tensors_;
};

}  // namespace tq::plugin
