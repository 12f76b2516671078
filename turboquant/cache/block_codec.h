// What a cache asks of an engine: rows into block records and back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "turboquant/base/inline.h"
#include "turboquant/cache/blocks.h"
#include "turboquant/format/rotation.h"
#include "turboquant/format/row_format.h"

namespace tq {

class BlockCodec {
  public:
    virtual ~BlockCodec();

    TQ_INLINE const RowFormat& format() const { return format_; }
    TQ_INLINE int head_dim() const { return head_dim_; }
    // Two codecs with the same one read each other's records (format/fingerprint.h).
    uint64_t fingerprint() const { return fingerprint_; }
    const Rotation& rotation(int head) const;  // not inline: kernels call it (base/inline.h)

    // A row is encoded in independent slices: the least runs of dims that hold whole heads and whole groups.
    // Two threads may encode different (slice, block) pairs at once; cells of one block and slice share bytes.
    int n_slices() const { return n_slices_; }

    // Dims [first, first + n) of a row.
    struct Slice {
        int64_t first;
        int n;
    };
    Slice slice_at(int slice) const;

    // row: n_embd floats (only the slice's are read).
    // Centered keys: a store to the first centered cell of a block (cell 0; in block 0 the one behind the uncentered
    // cells) chooses the block's center anew: the mean of what the block before holds, in block 0 what its first two
    // cells have in common. The other cells of the block that hold something keep their values, encoded again around
    // the new center. A store to another cell chooses a center only if there is none. So rows stored in the order of
    // their cells decode to the same whatever the calls they came in and whatever the cells held before; and two
    // threads may encode different slices at once, not different blocks. rewritten: cells of the block, a bit each,
    // that are stored to next, before anyone reads them: what they hold need not be kept.
    virtual void encode_slice(const float* row, const Blocks& blocks, int64_t cell, int slice,
                              uint64_t rewritten) const = 0;
    void encode(const float* row, const Blocks& blocks, int64_t cell, uint64_t rewritten = 0) const {
        for (int slice = 0; slice < n_slices_; ++slice) encode_slice(row, blocks, cell, slice, rewritten);
    }

    // Stores all rows of a block at once: row i, at rows + i * n_embd, where bit i of `cells` is set. Centered keys get
    // these rows' own mean as the center, for rows that have all changed (a context shift turns keys, and the old
    // center is not like them). What other cells hold stays, around the new center. Different threads may encode
    // different blocks.
    virtual void encode_block(const float* rows, uint64_t cells, const Blocks& blocks, int64_t block) const = 0;

    // The inverse up to quantization. encode(decode(bytes)) gives the same bytes, also through f16 rows and (up to 5
    // bits) bf16 rows, unless a group is so much smaller than its head that its values drown in their rounding errors.
    // tests/codec_test.cpp states the few exceptions: rows of a few distinct values, single codes of 6-8 bits in bf16.
    virtual void decode(const ConstBlocks& blocks, int64_t cell, float* row) const = 0;
    // The same of cells [first_cell, first_cell + n) of a block, to rows of n_embd, which is much faster.
    virtual void decode_block(const ConstBlocks& blocks, int64_t block, int first_cell, int n, float* rows) const = 0;
    // Decodes without the inverse rotation (attention works on such rows).
    virtual void decode_rotated(const ConstBlocks& blocks, int64_t cell, float* row) const = 0;

    // Cells of a block that hold something, a bit each: some scale of theirs is not 0.
    virtual uint64_t cells_in_use(const uint8_t* record) const = 0;

    // Copies one row's codes and scales. A block takes over the other block's center with its first centered cell, or
    // if it has none; keys around another center are encoded again. Whole blocks are copied as bytes.
    virtual void copy(const ConstBlocks& from, int64_t from_cell, const Blocks& to, int64_t to_cell) const = 0;
    // Makes the cell decode to zeros, as in a zero-filled record; centered keys to their center.
    virtual void clear(const Blocks& blocks, int64_t cell) const = 0;
    // Of a block none of whose cells are in use.
    virtual void reset_center(uint8_t* record) const = 0;

    // head_dim floats; in and out may be the same (format/rotation.h).
    virtual void rotate_row(int head, const float* in, float* out) const = 0;
    virtual void rotate_query(int head, const float* in, float* out) const = 0;
    virtual void rotate_inverse(int head, const float* in, float* out) const = 0;

  protected:
    BlockCodec(const RowFormat& format, std::vector<Rotation> rotations);

    RowFormat format_;
    std::vector<Rotation> rotations_;  // one for all heads, or (with channel scales) for each

  private:
    int head_dim_;
    uint64_t fingerprint_;
    int slice_dims_;
    int n_slices_;
};

// The rotations of a row's heads: one for all, or one for each with channel scales (format.n_embd of them, or none).
// Errors: kUnsupported (head_dim), kInvalidArgument.
Result<std::vector<Rotation>> rotations_of_row(const RowFormat& format, int head_dim,
                                               std::span<const float> channel_scales);

}  // namespace tq
