#include "turboquant/format/row_format.h"

#include <string>

namespace tq {

Result<RowFormat> RowFormat::create(Side side, int bits, int64_t n_embd, Coding coding) {
    if (bits < kMinBits || bits > kMaxBits) {
        return Status(Error::kInvalidArgument, "bits is " + std::to_string(bits) + "; allowed: 2 to 8");
    }
    if (is_centered(coding) && side == Side::kValue)
        return Status(Error::kInvalidArgument, "only keys can be centered");
    if (is_trellis(coding) && (bits < kMinTrellisBits || bits > kMaxTrellisBits)) {
        return Status(Error::kInvalidArgument,
                      "bits is " + std::to_string(bits) + "; allowed with trellis codes: 3 to 5");
    }
    if (n_embd <= 0 || n_embd % kStepDims != 0 || n_embd > (1 << 24)) {
        return Status(Error::kInvalidArgument,
                      "n_embd is " + std::to_string(n_embd) + "; allowed: positive multiples of 16 up to 2^24");
    }
    return RowFormat{side, coding, bits, n_embd};
}

double effective_bits(const Preset& preset, Side side) {
    const double scales = 8.0 / group_dims(side);
    const double centers = is_centered(preset.coding(side)) ? (kCenterBits + scales) / kBlockCells : 0;
    return preset.bits(side) + scales + centers;
}

}  // namespace tq
