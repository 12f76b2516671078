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

inline constexpr int kMaxKeySlice = 2 * kMaxHeadDim;  // dims of a slice of keys: whole heads and groups of 32

class RowCodec {
  public:
    // layout.n_embd must be a multiple of head_dim. channel_scales: layout.n_embd of them (codec/rotation.h), or none.
    // Errors: kUnsupported (head_dim), kInvalidArgument.
    static Result<RowCodec> create(const PackedLayout& layout, int head_dim, Isa isa,
                                   std::span<const float> channel_scales = {});

    TQ_INLINE const PackedLayout& layout() const { return layout_; }
    const Rotation& rotation(int head) const;  // not inline: kernels call it (base/inline.h)
    TQ_INLINE const CodecKernels& kernels() const { return *kernels_; }
    const Codebook& book() const { return *book_; }           // layouts without trellis have it
    const TrellisBook& trellis() const { return *trellis_; }  // layouts with trellis have it
    int head_dim() const { return rotations_.front().head_dim; }

    // A row is encoded in independent slices: the least runs of dims that hold whole heads and whole groups.
    // Two threads may encode different (slice, block) pairs at once; cells of one block and slice share bytes.
    int n_slices() const { return n_slices_; }

    // Dims [first, first + n) of a row.
    struct Slice {
        int64_t first;
        int n;
    };
    Slice slice_at(int slice) const;

    // row: n_embd floats (only the slice's are read). packed: layout().bytes() bytes.
    // Centered keys: a store to the first centered cell of a block (cell 0; in block 0 the one behind the uncentered
    // cells) chooses the block's center anew: the mean of what the block before holds, in block 0 what its first two
    // cells have in common. The other cells of the block that hold something keep their values, encoded again around
    // the new center. A store to another cell chooses a center only if there is none. So rows stored in the order of
    // their cells decode to the same whatever the calls they came in and whatever the cells held before; and two
    // threads may encode different slices at once, not different blocks. rewritten: cells of the block, a bit each,
    // that are stored to next, before anyone reads them: what they hold need not be kept.
    void encode_slice(const float* row, uint8_t* packed, int64_t stream, int64_t cell, int slice,
                      uint64_t rewritten = 0) const;
    void encode(const float* row, uint8_t* packed, int64_t stream, int64_t cell, uint64_t rewritten = 0) const {
        for (int slice = 0; slice < n_slices_; ++slice) encode_slice(row, packed, stream, cell, slice, rewritten);
    }

    // Stores all rows of a block at once: row i, at rows + i * n_embd, where bit i of `cells` is set. Centered keys get
    // these rows' own mean as the center, for rows that have all changed (a context shift turns keys, and the old
    // center is not like them). What other cells hold stays, around the new center. Different threads may encode
    // different blocks.
    void encode_block(const float* rows, uint64_t cells, uint8_t* packed, int64_t stream, int64_t block) const;

    // The inverse up to quantization. encode(decode(bytes)) gives the same bytes, also through f16 rows and (up to 5
    // bits) bf16 rows, unless a group is so much smaller than its head that its values drown in their rounding errors.
    // tests/codec_test.cpp states the few exceptions: rows of a few distinct values, single codes of 6-8 bits in bf16.
    void decode(const uint8_t* packed, int64_t stream, int64_t cell, float* row) const;

    // The same of cells [first_cell, first_cell + n) of a block, to rows of n_embd: tile by tile, which is much faster.
    void decode_block(const uint8_t* packed, int64_t stream, int64_t block, int first_cell, int n, float* rows) const;

    // Decodes without the inverse rotation (attention works on such rows).
    void decode_rotated(const uint8_t* packed, int64_t stream, int64_t cell, float* row) const;

    // Cells of a block that hold something, a bit each: some scale of theirs is not 0.
    uint64_t cells_in_use(const uint8_t* packed, int64_t stream, int64_t block) const;

    // Copies one packed row's codes and scales. A block takes over the other block's center with its first centered
    // cell, or if it has none; keys around another center are encoded again.
    void copy(uint8_t* packed, int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell) const;

    // Makes the cell decode to zeros, as in a zero-filled buffer; centered keys to their center.
    void clear(uint8_t* packed, int64_t stream, int64_t cell) const;

    // Centers of a block: of one whose cells are all copied, and of those from a block on, none of whose cells are in
    // use.
    void copy_center(uint8_t* packed, int64_t from_stream, int64_t from_block, int64_t to_stream,
                     int64_t to_block) const;
    void reset_centers(uint8_t* packed, int64_t stream, int64_t first_block) const;

  private:
    RowCodec(const PackedLayout& layout, std::vector<Rotation> rotations, Isa isa);
    void encode_around_center(const float* row, uint8_t* packed, int64_t stream, int64_t cell, Slice slice) const;
    void encode_window(const float* window, int n, uint8_t* codes, uint8_t* scales) const;
    void store_groups(int64_t begin, int n, const uint8_t* codes, const uint8_t* scales, uint8_t* packed,
                      int64_t stream, int64_t cell) const;
    void decode_differences(const uint8_t* packed, int64_t stream, int64_t cell, Slice slice, float* values) const;
    void decode_dims(const uint8_t* packed, int64_t stream, int64_t cell, Slice slice, float* values) const;
    struct StepCodes;
    void decode_step(const uint8_t* packed, int64_t stream, int64_t block, int64_t step, int first_cell, int n,
                     StepCodes& codes, float* values, int64_t stride) const;
    uint64_t live_cells(const uint8_t* packed, int64_t stream, int64_t block, Slice slice) const;

    void read_center(const uint8_t* packed, int64_t stream, int64_t block, Slice slice, float* center) const;
    bool has_chosen_center(const uint8_t* packed, int64_t stream, int64_t block, Slice slice) const;
    void prepare_center(uint8_t* packed, int64_t stream, int64_t cell, Slice slice, uint64_t rewritten) const;
    void mean_of_block_before(const uint8_t* packed, int64_t stream, int64_t block, Slice slice, float* mean) const;
    void estimate_from_first_cells(const uint8_t* packed, int64_t stream, Slice slice, float* center) const;
    void mean_of_rows(const float* rows, uint64_t cells, Slice slice, float* mean) const;
    template <class Write>
    void replace_center(uint8_t* packed, int64_t stream, int64_t block, Slice slice, uint64_t rewritten,
                        Write write) const;
    void set_center(uint8_t* packed, int64_t stream, int64_t block, Slice slice, const float* values,
                    uint64_t rewritten) const;
    void write_center(uint8_t* packed, int64_t stream, int64_t block, Slice slice, const float* values) const;
    void move_differences(uint8_t* packed, int64_t stream, int64_t block, Slice slice, const float* by,
                          uint64_t cells) const;
    void prepare_center_of_copy(uint8_t* packed, int64_t from_stream, int64_t from_cell, int64_t to_stream,
                                int64_t to_cell) const;
    void move_to_other_center(uint8_t* packed, int64_t from_stream, int64_t from_cell, int64_t to_stream,
                              int64_t to_cell) const;

    PackedLayout layout_;
    std::vector<Rotation> rotations_;  // one for all heads, or (with channel scales) for each
    const CodecKernels* kernels_;
    const Codebook* book_ = nullptr;
    const TrellisBook* trellis_ = nullptr;
    int slice_dims_;
    int n_slices_;
};

// The 16 codes (one byte each) of dims step*16.. of one cell, in the tile at `tile`.
void insert_codes(const PackedLayout& layout, int cell_in_block, const uint8_t* codes, uint8_t* tile);
void extract_codes(const PackedLayout& layout, int cell_in_block, const uint8_t* tile, uint8_t* codes);

}  // namespace tq
