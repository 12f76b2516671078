#include "turboquant/format/channel_scales.h"

#include <algorithm>
#include <cmath>

#include "turboquant/format/rotation.h"

namespace tq {

std::vector<float> balanced_scales(std::span<const double> energy, std::span<const double> weight) {
    std::vector<float> scales(energy.size(), 1.0f);
    const auto counts = [&](size_t i) { return energy[i] > 0 && weight[i] > 0; };
    double before = 0, after = 0;
    for (size_t i = 0; i < energy.size(); ++i) {
        if (!counts(i)) continue;
        before += energy[i];
        after += std::sqrt(weight[i] * energy[i]);  // D_i^2 energy_i
    }
    const double factor = after > 0 ? std::sqrt(before / after) : 1;
    for (size_t i = 0; i < energy.size(); ++i) {
        if (!counts(i)) continue;
        const double scale = factor * std::pow(weight[i] / energy[i], 0.25);
        scales[i] = static_cast<float>(std::clamp<double>(scale, kMinChannelScale, kMaxChannelScale));
    }
    return scales;
}

std::string channel_scales_name(int layer, Side side, bool centered) {
    return "blk." + std::to_string(layer) + (side == Side::kKey ? ".attn_k" : ".attn_v") +
           (centered ? "_centered" : "") + ".channel_scale";
}

}  // namespace tq
