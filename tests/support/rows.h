// Kinds of rows that a cache may be given.
#pragma once

#include <cmath>
#include <vector>

#include "tests/support/random.h"
#include "turboquant/cpu/codec/kernels.h"

namespace tq::test {

enum class RowKind { kGaussian, kHeavyTailed, kOneHot, kConstant, kSparse, kScaled, kSpikeAfterRotation };
inline constexpr RowKind kRowKinds[] = {RowKind::kGaussian,          RowKind::kHeavyTailed, RowKind::kOneHot,
                                        RowKind::kConstant,          RowKind::kSparse,      RowKind::kScaled,
                                        RowKind::kSpikeAfterRotation};

inline const char* row_kind_name(RowKind kind) {
    constexpr const char* kNames[] = {"Gaussian", "HeavyTailed",       "OneHot", "Constant", "Sparse",
                                      "Scaled",   "SpikeAfterRotation"};
    return kNames[static_cast<int>(kind)];
}

// Every group but one is zero or nearly so after the rotation: the hardest case for a codebook.
inline std::vector<float> spike_after_rotation(const Rotation& rotation, int64_t n, double size, Random& random) {
    std::vector<float> row(n);
    for (int64_t head = 0; head < n; head += rotation.head_dim) {
        std::vector<float> rotated(rotation.head_dim);
        rotated[random.below(rotation.head_dim)] = static_cast<float>(size * random.normal());
        codec_kernels(available_isas().back()).rotate_inverse(rotation, rotated.data(), row.data() + head);
    }
    return row;
}

// n values of typical size 1.
inline std::vector<float> make_row(RowKind kind, const Rotation& rotation, int64_t n, Random& random) {
    if (kind == RowKind::kSpikeAfterRotation) return spike_after_rotation(rotation, n, 10, random);
    std::vector<float> row = random.normals(n);
    const float constant = row[0];
    const auto size = static_cast<float>(std::exp2(-6 + 16 * random.uniform()));
    for (float& x : row) {
        switch (kind) {
            case RowKind::kHeavyTailed:
                x = x * x * x;
                break;
            case RowKind::kConstant:
                x = constant;
                break;
            case RowKind::kSparse:
                x = random.below(10) == 0 ? x : 0;
                break;
            case RowKind::kScaled:
                x *= size;
                break;
            case RowKind::kOneHot:
                x = 0;
                break;
            default:
                break;
        }
    }
    if (kind == RowKind::kOneHot) row[random.below(n)] = 10 * constant;
    return row;
}

}  // namespace tq::test
