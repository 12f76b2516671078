#include "turboquant/format/fingerprint.h"

#include "turboquant/format/codebook.h"
#include "turboquant/format/scale.h"
#include "turboquant/format/trellis.h"

namespace tq {
namespace {

void add_levels(Hash& hash, int bits, bool trellis) {
    if (trellis)
        hash.add(trellis_book(bits).level.data(), size_t{2} << bits);
    else
        hash.add(codebook(bits).centroid.data(), size_t{1} << bits);
}

}  // namespace

uint64_t fingerprint(const RowFormat& format, std::span<const Rotation> rotations) {
    Hash hash;
    hash.add(kFormatVersion);
    for (int32_t constant : {kStepDims, kBlockCells, group_dims(format.side), kCenterBits, kUncenteredCells})
        hash.add(constant);
    hash.add(static_cast<int32_t>(format.side));
    hash.add(static_cast<int32_t>(format.coding));
    hash.add(static_cast<int32_t>(format.bits));
    hash.add(format.n_embd);
    add_levels(hash, format.bits, format.trellis());
    if (format.centered()) add_levels(hash, kCenterBits, false);
    for (int code = 0; code <= kMaxScaleCode; ++code) hash.add(scale_from_code(static_cast<uint8_t>(code)));
    for (const Rotation& rotation : rotations) {
        hash.add(static_cast<int32_t>(rotation.head_dim));
        hash.add(rotation.first.data(), sizeof(float) * rotation.first.size());
        hash.add(rotation.second.data(), sizeof(float) * rotation.second.size());
    }
    return hash.value();
}

}  // namespace tq
