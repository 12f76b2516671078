// Channel scales (format/rotation.h) from a calibration: what they should be, and what they are called in a file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "turboquant/format/coding.h"

namespace tq {

// The scales D of a head's channels for which the codec costs least. Of a vector x stored as D x its rotated code errs
// by about |D x|, alike in all directions; an error e costs the mean of (w . D^-1 e)^2 later on. With E x_i^2 =
// energy[i] and E w_i^2 = weight[i] (of keys w is a query; of values a row of the output projection) the cost is
//   sum(D_i^2 energy_i) * sum(weight_i / D_i^2),   least at D_i^4 = weight_i / energy_i.
// D is such that sum(D_i^2 energy_i) = sum(energy_i), but for its limits. Channels without energy or weight get 1.
std::vector<float> balanced_scales(std::span<const double> energy, std::span<const double> weight);

// Metadata of a calibration file (docs/codec.md, section 7): its writer and its readers agree on these.
inline constexpr const char* kCalibrationFormatKey = "turboquant.calibration.format";
inline constexpr const char* kCalibrationModelKey = "turboquant.calibration.model";
inline constexpr uint32_t kCalibrationFormat = 1;

// The name of a layer's tensor in a calibration file: "blk.3.attn_k.channel_scale",
// "blk.3.attn_k_centered.channel_scale".
std::string channel_scales_name(int layer, Side side, bool centered);

}  // namespace tq
