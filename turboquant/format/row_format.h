// What the rows of one packed K or V tensor are: enough to know how large a block of them is, in any engine's order.
//
// A row is one cell's n_embd = n_head_kv * head_dim values. A block record holds the 64 rows of a block: codes, a scale
// for each (cell, group), and of centered keys the block's center. Records are all that a cache consists of: they can
// be copied, moved, saved and listed in a block table one by one. Where codes lie inside a record is an engine's own
// (cpu/record.h for CPUs and Metal); how many bytes it has is not, nor does it depend on head_dim: a cache can be
// allocated before head_dim is known.
#pragma once

#include <cstddef>
#include <cstdint>

#include "turboquant/base/inline.h"
#include "turboquant/base/status.h"
#include "turboquant/format/coding.h"
#include "turboquant/format/preset.h"

namespace tq {

inline constexpr size_t kRecordAlignment = 64;  // records are multiples of it, and start at one

struct RowFormat {
    Side side = Side::kKey;
    Coding coding = Coding::kScalar;
    int bits = 4;
    int64_t n_embd = 0;  // values a row, a multiple of 16

    // Error: kInvalidArgument naming the argument.
    static Result<RowFormat> create(Side side, int bits, int64_t n_embd, Coding coding = Coding::kScalar);
    // Makes the format of one side of a preset.
    static Result<RowFormat> create(const Preset& preset, Side side, int64_t n_embd) {
        return create(side, preset.bits(side), n_embd, preset.coding(side));
    }
    bool operator==(const RowFormat&) const = default;

    TQ_INLINE bool trellis() const { return is_trellis(coding); }
    TQ_INLINE bool centered() const { return is_centered(coding); }
    // cell: of the sequence.
    TQ_INLINE bool has_center(int64_t cell) const { return centered() && cell >= kUncenteredCells; }

    TQ_INLINE int64_t n_steps() const { return n_embd / kStepDims; }
    TQ_INLINE int64_t n_groups() const { return (n_steps() + group_steps(side) - 1) >> group_steps_log2(side); }
    TQ_INLINE int group_of_step(int64_t step) const { return static_cast<int>(step >> group_steps_log2(side)); }
    // Says whether what precedes the step in its group is a part of its chain (of trellis codes).
    TQ_INLINE bool continues_chain(int64_t step) const { return step % group_steps(side) != 0; }
    // Steps that the group really has: the last one may be narrower.
    TQ_INLINE int64_t steps_in_group(int64_t group) const {
        return smaller<int64_t>(group_steps(side), n_steps() - group * group_steps(side));
    }

    TQ_INLINE size_t center_codes_bytes() const { return static_cast<size_t>(n_embd) * kCenterBits / 8; }
    // Bytes of a center: its codes, then a scale for each group, 0 as long as none is chosen.
    TQ_INLINE size_t center_bytes() const {
        return centered() ? center_codes_bytes() + static_cast<size_t>(n_groups()) : 0;
    }
    // Bytes of the codes and scales of a block.
    TQ_INLINE size_t rows_bytes() const {
        return static_cast<size_t>(n_embd) * kBlockCells / 8 * static_cast<size_t>(bits) +
               static_cast<size_t>(n_groups()) * kBlockCells;
    }
    // Bytes of a block record: all that an allocator needs to know.
    TQ_INLINE size_t block_bytes() const {
        return (rows_bytes() + center_bytes() + kRecordAlignment - 1) / kRecordAlignment * kRecordAlignment;
    }
    // Bits a value of whole blocks, everything counted.
    double effective_bits() const {
        return 8.0 * static_cast<double>(block_bytes()) / (static_cast<double>(n_embd) * kBlockCells);
    }
};

TQ_INLINE constexpr int64_t blocks_of_cells(int64_t n_cells) {
    return (n_cells + kBlockCells - 1) / kBlockCells;
}

// Effective bits per value of a preset for rows whose width is a multiple of 64, without the padding of records.
double effective_bits(const Preset& preset, Side side);
inline double effective_bits(const Preset& preset) {
    return (effective_bits(preset, Side::kKey) + effective_bits(preset, Side::kValue)) / 2;
}

}  // namespace tq
