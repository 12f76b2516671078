// Encodes and decodes rows (one cell: n_head_kv heads of head_dim values) of a packed tensor.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "turboquant/base/inline.h"
#include "turboquant/base/isa.h"
#include "turboquant/codec/codebook.h"
#include "turboquant/codec/kernels.h"
#include "turboquant/codec/layout.h"
#include "turboquant/codec/rotation.h"

namespace tq {

class RowCodec {
public:
    // layout.n_embd must be a multiple of head_dim. channel_scales: layout.n_embd of them (codec/rotation.h), or none.
    // Errors: kUnsupported (head_dim), kInvalidArgument.
    static Result<RowCodec> create(const PackedLayout& layout, int head_dim, Isa isa, std::span<const float> channel_scales = {});

    TQ_INLINE const PackedLayout& layout() const { return layout_; }
    const Rotation& rotation(int head) const;   // not inline: kernels call it (base/inline.h)
    TQ_INLINE const CodecKernels& kernels() const { return *kernels_; }
    const Codebook& book() const { return *book_; }              // of a layout without trellis
    const TrellisBook& trellis() const { return *trellis_; }     // of one with
    int head_dim() const { return rotations_.front().head_dim; }

    // A row is encoded in independent slices: the least runs of dims that hold whole heads and whole groups.
    // Two threads may encode different (slice, block) pairs at once; cells of one block and slice share bytes.
    int n_slices() const { return n_slices_; }

    // row: n_embd floats (only the slice's are read). packed: layout().bytes() bytes.
    // Centered keys: what is first stored in a block gives it its center, for as long as reset_centers does not forget it:
    // the mean of what the block before holds, of block 0 (behind its first two cells) what those have in common. So rows
    // stored in the order of their cells decode to the same whatever the calls they came in; and two threads may encode
    // different slices at once, not different blocks.
    void encode_slice(const float* row, uint8_t* packed, int64_t stream, int64_t cell, int slice) const;
    void encode(const float* row, uint8_t* packed, int64_t stream, int64_t cell) const {
        for (int slice = 0; slice < n_slices_; ++slice) encode_slice(row, packed, stream, cell, slice);
    }

    // The inverse up to quantization. encode(decode(bytes)) gives the same bytes, also through f16 rows and (up to 5 bits)
    // bf16 rows, unless a group is so much smaller than its head that its values drown in their rounding errors.
    // tests/codec_test.cpp states the few exceptions: rows of a few distinct values, single codes of 6-8 bits in bf16.
    void decode(const uint8_t* packed, int64_t stream, int64_t cell, float* row) const;

    // As decode, but without the inverse rotation (what attention works on).
    void decode_rotated(const uint8_t* packed, int64_t stream, int64_t cell, float* row) const;

    // Copies one packed row's codes and scales. Keys around another center are encoded again.
    void copy(uint8_t* packed, int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell) const;

    // Makes the cell decode to zeros, as in a zero-filled buffer; centered keys to their center.
    void clear(uint8_t* packed, int64_t stream, int64_t cell) const;

    // Centers of a block: of one whose cells are all copied, and of those from a block on, none of whose cells are in use.
    void copy_center(uint8_t* packed, int64_t from_stream, int64_t from_block, int64_t to_stream, int64_t to_block) const;
    void reset_centers(uint8_t* packed, int64_t stream, int64_t first_block) const;

private:
    RowCodec(const PackedLayout& layout, std::vector<Rotation> rotations, Isa isa);
    void encode_window(const float* window, int n, uint8_t* codes, uint8_t* scales) const;
    void decode_steps(const uint8_t* packed, int64_t stream, int64_t cell, int64_t first, int64_t end, float* values) const;
    void choose_center(uint8_t* packed, int64_t stream, int64_t block, int slice) const;
    void mean_of_block_before(const uint8_t* packed, int64_t stream, int64_t block, int64_t first, int n, float* mean) const;
    void estimate_from_first_cells(const uint8_t* packed, int64_t stream, int64_t first, int n, float* center) const;
    bool holds_something(const uint8_t* packed, int64_t stream, int64_t cell, int64_t first, int n) const;
    int add_block_before(const uint8_t* packed, int64_t stream, int64_t block, int64_t first, int n, float* sums) const;
    void store_center(uint8_t* packed, int64_t stream, int64_t block, int64_t first, int n, const float* values) const;
    void subtract_center(const uint8_t* packed, int64_t stream, int64_t cell, int64_t first, int n, float* values) const;
    void move_to_other_center(uint8_t* packed, int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell) const;

    PackedLayout layout_;
    std::vector<Rotation> rotations_;   // one for all heads, or (with channel scales) for each
    const CodecKernels* kernels_;
    const Codebook* book_ = nullptr;
    const TrellisBook* trellis_ = nullptr;
    int slice_dims_;
    int n_slices_;
};

// Of a center at `center`, the code of one dim of the row.
inline int center_code(const uint8_t* center, int64_t dim) {
    return center[dim / 8 * 4 + dim % 4] >> (dim / 4 % 2 * kCenterBits) & ((1 << kCenterBits) - 1);
}

// The 16 codes (one byte each) of dims step*16.. of one cell, in the tile at `tile`.
void insert_codes(const PackedLayout& layout, int cell_in_block, const uint8_t* codes, uint8_t* tile);
void extract_codes(const PackedLayout& layout, int cell_in_block, const uint8_t* tile, uint8_t* codes);

}  // namespace tq
