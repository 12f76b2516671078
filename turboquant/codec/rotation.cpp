#include "turboquant/codec/rotation.h"

#include <string>

namespace tq {

Result<Rotation> Rotation::create(int head_dim) {
    if (head_dim < kMinHeadDim || head_dim > kMaxHeadDim || head_dim % 16 != 0) {
        return Status(Error::kUnsupported,
                      "head_dim is " + std::to_string(head_dim) + "; supported: multiples of 16 from 16 to 512");
    }
    Rotation rotation;
    rotation.head_dim = head_dim;
    rotation.run = head_dim & -head_dim;
    rotation.norm = 1.0f / static_cast<float>(rotation.run);
    for (int round = 0; round < 2; ++round) {
        rotation.signs[round].resize(head_dim);
        for (int i = 0; i < head_dim; ++i) {
            rotation.signs[round][i] = rotation_sign_is_negative(head_dim, round, i) ? -1.0f : 1.0f;
        }
    }
    return rotation;
}

}  // namespace tq
