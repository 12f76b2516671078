#include "turboquant/format/rotation.h"

#include <string>

namespace tq {

namespace {

Status check_scales(int head_dim, std::span<const float> scales) {
    if (!scales.empty() && scales.size() != static_cast<size_t>(head_dim)) {
        return Status(Error::kInvalidArgument,
                      std::to_string(scales.size()) + " channel scales for head_dim " + std::to_string(head_dim));
    }
    for (size_t i = 0; i < scales.size(); ++i) {
        if (scales[i] >= kMinChannelScale && scales[i] <= kMaxChannelScale) continue;  // neither, for NaN
        return Status(Error::kInvalidArgument, "the scale of channel " + std::to_string(i) + " is " +
                                                   std::to_string(scales[i]) + "; allowed: 1/64 to 64");
    }
    return {};
}

}  // namespace

Result<Rotation> Rotation::create(int head_dim, std::span<const float> channel_scales) {
    if (head_dim < kMinHeadDim || head_dim > kMaxHeadDim || head_dim % 16 != 0) {
        return Status(Error::kUnsupported,
                      "head_dim is " + std::to_string(head_dim) + "; supported: multiples of 16 from 16 to 512");
    }
    if (Status status = check_scales(head_dim, channel_scales); !status.ok()) return status;
    Rotation rotation;
    rotation.head_dim = head_dim;
    rotation.run = head_dim & -head_dim;
    rotation.norm = 1.0f / static_cast<float>(rotation.run);
    for (int i = 0; i < head_dim; ++i) {
        const auto sign = [&](int round) { return rotation_sign_is_negative(head_dim, round, i) ? -1.0f : 1.0f; };
        const float scale = channel_scales.empty() ? 1.0f : channel_scales[static_cast<size_t>(i)];
        rotation.first.push_back(sign(0) * scale);
        rotation.first_inverse.push_back(sign(0) / scale);
        rotation.second.push_back(sign(1));
    }
    return rotation;
}

Rotation::Diagonals Rotation::diagonals() const {
    return {first.data(), first_inverse.data(), second.data()};
}

}  // namespace tq
