// BlockCodec for CPUs: records in the order of cpu/record.h. By subject: encode_rows.cpp, decode_rows.cpp, centers.cpp,
// copy_rows.cpp.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "turboquant/base/inline.h"
#include "turboquant/base/isa.h"
#include "turboquant/cache/block_codec.h"
#include "turboquant/cpu/codec/kernels.h"
#include "turboquant/cpu/record.h"
#include "turboquant/format/codebook.h"

namespace tq {

inline constexpr int kMaxKeySlice = 2 * kMaxHeadDim;  // dims of a slice of keys: whole heads and groups of 32

class RowCodec final : public BlockCodec {
  public:
    // format.n_embd must be a multiple of head_dim. channel_scales: format.n_embd of them (format/rotation.h), or none.
    // Errors: kUnsupported (head_dim), kInvalidArgument.
    static Result<RowCodec> create(const RowFormat& format, int head_dim, Isa isa,
                                   std::span<const float> channel_scales = {});

    TQ_INLINE const CodecKernels& kernels() const { return *kernels_; }
    const Codebook& book() const { return *book_; }           // formats without trellis have it
    const TrellisBook& trellis() const { return *trellis_; }  // formats with trellis have it

    void encode_slice(const float* row, const Blocks& blocks, int64_t cell, int slice,
                      uint64_t rewritten = 0) const override;
    void encode_block(const float* rows, uint64_t cells, const Blocks& blocks, int64_t block) const override;
    void decode(const ConstBlocks& blocks, int64_t cell, float* row) const override;
    void decode_block(const ConstBlocks& blocks, int64_t block, int first_cell, int n, float* rows) const override;
    void decode_rotated(const ConstBlocks& blocks, int64_t cell, float* row) const override;
    uint64_t cells_in_use(const uint8_t* record) const override;
    void copy(const ConstBlocks& from, int64_t from_cell, const Blocks& to, int64_t to_cell) const override;
    void clear(const Blocks& blocks, int64_t cell) const override;
    void reset_center(uint8_t* record) const override;
    void rotate_row(int head, const float* in, float* out) const override;
    void rotate_query(int head, const float* in, float* out) const override;
    void rotate_inverse(int head, const float* in, float* out) const override;

  private:
    RowCodec(const RowFormat& format, std::vector<Rotation> rotations, Isa isa);
    void encode_around_center(const float* row, uint8_t* record, int64_t cell, Slice slice) const;
    void encode_window(const float* window, int n, uint8_t* codes, uint8_t* scales) const;
    void store_groups(int64_t begin, int n, const uint8_t* codes, const uint8_t* scales, uint8_t* record,
                      int cell_in_block) const;

    void decode_differences(const uint8_t* record, int cell_in_block, Slice slice, float* values) const;
    void decode_dims(const uint8_t* record, int64_t cell, Slice slice, float* values) const;
    struct StepCodes;
    void decode_step(const uint8_t* record, int64_t block, int64_t step, int first_cell, int n, StepCodes& codes,
                     float* values, int64_t stride) const;
    uint64_t live_cells(const uint8_t* record, Slice slice) const;

    void read_center(const uint8_t* record, Slice slice, float* center) const;
    bool has_chosen_center(const uint8_t* record, Slice slice) const;
    void prepare_center(const Blocks& blocks, int64_t cell, Slice slice, uint64_t rewritten) const;
    void mean_of_block_before(const ConstBlocks& blocks, int64_t block, Slice slice, float* mean) const;
    void estimate_from_first_cells(const uint8_t* record, Slice slice, float* center) const;
    void mean_of_rows(const float* rows, uint64_t cells, Slice slice, float* mean) const;
    template <class Write>
    void replace_center(uint8_t* record, int64_t block, Slice slice, uint64_t rewritten, Write write) const;
    void set_center(uint8_t* record, int64_t block, Slice slice, const float* values, uint64_t rewritten) const;
    void write_center(uint8_t* record, Slice slice, const float* values) const;
    void move_differences(uint8_t* record, Slice slice, const float* by, uint64_t cells) const;

    void prepare_center_of_copy(const ConstBlocks& from, int64_t from_cell, const Blocks& to, int64_t to_cell) const;
    bool have_same_center(const uint8_t* from, int64_t from_cell, const uint8_t* to, int64_t to_cell) const;
    void move_to_other_center(const uint8_t* from, int64_t from_cell, uint8_t* to, int64_t to_cell) const;

    const CodecKernels* kernels_;
    const Codebook* book_ = nullptr;
    const TrellisBook* trellis_ = nullptr;
};

// The 16 codes (one byte each) of dims step*16.. of one cell, in the tile at `tile`.
void insert_codes(const RowFormat& format, int cell_in_block, const uint8_t* codes, uint8_t* tile);
void extract_codes(const RowFormat& format, int cell_in_block, const uint8_t* tile, uint8_t* codes);

// A cell's scale code of a group.
TQ_INLINE uint8_t* scale_at(const RowFormat& format, uint8_t* record, int64_t group, int cell_in_block) {
    return record + scale_offset(format, group) + cell_in_block;
}
TQ_INLINE int cell_in_block(int64_t cell) {
    return static_cast<int>(cell % kBlockCells);
}

}  // namespace tq
