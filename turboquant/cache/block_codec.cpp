#include "turboquant/cache/block_codec.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "turboquant/format/fingerprint.h"

namespace tq {

BlockCodec::BlockCodec(const RowFormat& format, std::vector<Rotation> rotations)
    : format_(format),
      rotations_(std::move(rotations)),
      head_dim_(rotations_.front().head_dim),
      fingerprint_(tq::fingerprint(format, rotations_)),
      slice_dims_(std::lcm(head_dim_, group_dims(format.side))) {
    if (slice_dims_ > format.n_embd) slice_dims_ = static_cast<int>(format.n_embd);
    n_slices_ = static_cast<int>((format.n_embd + slice_dims_ - 1) / slice_dims_);
}

BlockCodec::~BlockCodec() = default;

const Rotation& BlockCodec::rotation(int head) const {
    return rotations_[rotations_.size() > 1 ? static_cast<size_t>(head) : 0];
}

BlockCodec::Slice BlockCodec::slice_at(int slice) const {
    const int64_t first = int64_t{slice} * slice_dims_;
    return {first, static_cast<int>(std::min<int64_t>(slice_dims_, format_.n_embd - first))};
}

Result<std::vector<Rotation>> rotations_of_row(const RowFormat& format, int head_dim,
                                               std::span<const float> channel_scales) {
    Result<Rotation> plain = Rotation::create(head_dim);
    if (!plain.ok()) return plain.status();
    if (format.n_embd % head_dim != 0) {
        return Status(Error::kInvalidArgument, "n_embd " + std::to_string(format.n_embd) +
                                                   " is not a multiple of head_dim " + std::to_string(head_dim));
    }
    std::vector<Rotation> rotations;
    if (channel_scales.empty()) {
        rotations.push_back(std::move(plain.value()));
        return rotations;
    }
    if (channel_scales.size() != static_cast<size_t>(format.n_embd)) {
        return Status(Error::kInvalidArgument, std::to_string(channel_scales.size()) + " channel scales for n_embd " +
                                                   std::to_string(format.n_embd));
    }
    for (int64_t dim = 0; dim < format.n_embd; dim += head_dim) {
        Result<Rotation> scaled =
            Rotation::create(head_dim, channel_scales.subspan(static_cast<size_t>(dim), static_cast<size_t>(head_dim)));
        if (!scaled.ok()) return scaled.status();
        rotations.push_back(std::move(scaled.value()));
    }
    return rotations;
}

}  // namespace tq
