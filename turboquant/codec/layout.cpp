#include "turboquant/codec/layout.h"

#include <limits>
#include <string>

namespace tq {

Result<PackedLayout> PackedLayout::create(Side side, int bits, int64_t n_embd, int64_t n_cells, int64_t n_stream,
                                          bool trellis, bool centered) {
    constexpr int64_t kLimit = int64_t{1} << 40;  // keeps every product below in 64 bits
    if (bits < kMinBits || bits > kMaxBits) {
        return Status(Error::kInvalidArgument, "bits is " + std::to_string(bits) + "; allowed: 2 to 8");
    }
    if (centered && side == Side::kValue) return Status(Error::kInvalidArgument, "only keys can be centered");
    if (trellis && (bits < kMinTrellisBits || bits > kMaxTrellisBits)) {
        return Status(Error::kInvalidArgument,
                      "bits is " + std::to_string(bits) + "; allowed with trellis codes: 3 to 5");
    }
    if (n_embd <= 0 || n_embd % kStepDims != 0 || n_embd > (1 << 24)) {
        return Status(Error::kInvalidArgument,
                      "n_embd is " + std::to_string(n_embd) + "; allowed: positive multiples of 16 up to 2^24");
    }
    if (n_cells <= 0 || n_stream <= 0 || n_cells > kLimit / n_embd / n_stream) {
        return Status(Error::kInvalidArgument, "n_cells " + std::to_string(n_cells) + " x n_stream " +
                                                   std::to_string(n_stream) + " is not positive or too large");
    }
    return PackedLayout{side, bits, n_embd, n_cells, n_stream, trellis, centered};
}

double effective_bits(const Preset& preset, Side side) {
    const double scales = 8.0 / group_dims(side);
    const double centers = preset.centered(side) ? (kCenterBits + scales) / kBlockCells : 0;
    return preset.bits(side) + scales + centers;
}

}  // namespace tq
