#include "turboquant/format/plain_block.h"

#include "turboquant/format/codebook.h"
#include "turboquant/format/scale.h"
#include "turboquant/format/trellis.h"

namespace tq {
namespace {

// Levels of a group's codes, one after another.
class Levels {
  public:
    explicit Levels(const RowFormat& format) : format_(format) {}

    int next(uint8_t code) {
        if (!format_.trellis()) return codebook(format_.bits).centroid[code];
        const TrellisBook& book = trellis_book(format_.bits);
        const int path_bit = code >> (book.bits - 1), inner = code & ((1 << (book.bits - 1)) - 1);
        const int level = book.level_at(trellis_subset(state_, path_bit), inner);
        state_ = next_trellis_state(state_, path_bit);
        return level;
    }

  private:
    const RowFormat& format_;
    int state_ = 0;
};

}  // namespace

void decode_plain(const RowFormat& format, const PlainBlock& block, int cell_in_block, int64_t cell, float* row) {
    const int width = group_dims(format.side);
    const uint8_t* codes = block.codes.data() + cell_in_block * format.n_embd;
    const uint8_t* scales = block.scales.data() + cell_in_block * format.n_groups();
    for (int64_t group = 0; group < format.n_groups(); ++group) {
        Levels levels(format);
        const float scale = scale_from_code(scales[group]);
        for (int64_t i = group * width; i < smaller<int64_t>((group + 1) * width, format.n_embd); ++i) {
            row[i] = scale * static_cast<float>(levels.next(codes[i]));
            if (!format.has_center(cell)) continue;
            const int level = codebook(kCenterBits).centroid[block.center_codes[static_cast<size_t>(i)]];
            row[i] += scale_from_code(block.center_scales[static_cast<size_t>(group)]) * static_cast<float>(level);
        }
    }
}

}  // namespace tq
