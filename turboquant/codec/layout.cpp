#include "turboquant/codec/layout.h"

#include <limits>
#include <string>

namespace tq {

Result<PackedLayout> PackedLayout::create(Side side, int bits, int64_t n_embd, int64_t n_cells, int64_t n_stream,
                                          bool trellis) {
    constexpr int64_t kLimit = int64_t{1} << 40;  // keeps every product below in 64 bits
    if (bits < kMinBits || bits > kMaxBits) {
        return Status(Error::kInvalidArgument, "bits is " + std::to_string(bits) + "; allowed: 2 to 8");
    }
    if (trellis && (bits < kMinTrellisBits || bits > kMaxTrellisBits)) {
        return Status(Error::kInvalidArgument, "bits is " + std::to_string(bits) + "; allowed with trellis codes: 3 to 5");
    }
    if (n_embd <= 0 || n_embd % kStepDims != 0 || n_embd > (1 << 24)) {
        return Status(Error::kInvalidArgument,
                      "n_embd is " + std::to_string(n_embd) + "; allowed: positive multiples of 16 up to 2^24");
    }
    if (n_cells <= 0 || n_stream <= 0 || n_cells > kLimit / n_embd / n_stream) {
        return Status(Error::kInvalidArgument, "n_cells " + std::to_string(n_cells) + " x n_stream " +
                                                   std::to_string(n_stream) + " is not positive or too large");
    }
    return PackedLayout{side, bits, n_embd, n_cells, n_stream, trellis};
}

double effective_bits(Side side, int bits) { return bits + 8.0 / group_dims(side); }

}  // namespace tq
