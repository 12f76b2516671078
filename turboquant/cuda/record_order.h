// Where the bits of a block record lie for NVIDIA GPUs: codes in the order in which a warp's lanes hold the matrix A of
// mma.m16n8k32, so that what a lane reads in 16 bytes is what it multiplies. One source for host and device; all
// offsets are in bytes from the record's begin.
//
//   unit = 16 dims of a head x 64 cells: 1024 codes, 32 of them in each of 32 lanes, in `bits` 32-bit words a lane
//
// A lane's 32 codes are 4 slots of 8. Lane = 4 * r + t:
//   keys    slot = cell / 16,  codes 0-3: cell r of these 16, dims 4 t ..;  codes 4-7: cell 8 + r
//   values  slot = 2 * (dim / 8) + cell / 32,  dim % 8 = r,  code i: cell 16 * (i / 2 % 2) + 8 * (i / 4) + 2 * t + i %
//   2
// A record: [head][unit][word][lane], words in fours (16 bytes a lane); scales are 64 bytes a group, behind each head's
// codes where heads are whole groups, else behind all codes; the center at the end lies as in cpu/record.h.
#pragma once

#include "turboquant/format/coding.h"
#include "turboquant/format/levels.h"

namespace tq::cuda {

TQ_FORMAT_TABLE int kLanes = 32;
TQ_FORMAT_TABLE int kSlots = 4;
TQ_FORMAT_TABLE int kSlotCodes = 8;

// The tensor whose records are meant.
struct RecordOrder {
    Side side;
    int bits;
    int head_dim;
    int n_head;

    TQ_FORMAT_FN int n_units() const { return head_dim / kStepDims; }  // of a head
    TQ_FORMAT_FN int n_groups() const {                                // of the row
        return (n_head * head_dim + group_dims(side) - 1) / group_dims(side);
    }
    TQ_FORMAT_FN bool whole_groups() const { return head_dim % group_dims(side) == 0; }
    TQ_FORMAT_FN int head_codes_bytes() const { return head_dim * bits * (kBlockCells / 8); }
    TQ_FORMAT_FN int head_groups() const { return head_dim / group_dims(side); }  // if they are whole
    TQ_FORMAT_FN int head_stride() const {
        return head_codes_bytes() + (whole_groups() ? head_groups() * kBlockCells : 0);
    }
    TQ_FORMAT_FN int codes_offset(int head) const { return head * head_stride(); }
    // group: of the row.
    TQ_FORMAT_FN int scales_offset(int group) const {
        if (!whole_groups()) return n_head * head_codes_bytes() + group * kBlockCells;
        const int head = group / head_groups();
        return head * head_stride() + head_codes_bytes() + (group - head * head_groups()) * kBlockCells;
    }
    TQ_FORMAT_FN int center_offset() const { return n_head * head_codes_bytes() + n_groups() * kBlockCells; }
};

// Where a code of a unit is, and which one that is.
struct CodePlace {
    int lane, slot, index;
};
struct CodeOf {
    int cell, dim;
};

TQ_FORMAT_FN CodePlace code_place(Side side, int cell, int dim) {
    if (side == Side::kKey) return {4 * (cell % 8) + dim / 4, cell / 16, 4 * (cell / 8 % 2) + dim % 4};
    return {4 * (dim % 8) + cell % 8 / 2, 2 * (dim / 8) + cell / 32,
            4 * (cell / 8 % 2) + 2 * (cell / 16 % 2) + cell % 2};
}
TQ_FORMAT_FN CodeOf code_of(Side side, int lane, int slot, int index) {
    const int r = lane / 4, t = lane % 4;
    if (side == Side::kKey) return {16 * slot + 8 * (index / 4) + r, 4 * t + index % 4};
    return {32 * (slot % 2) + 16 * (index / 2 % 2) + 8 * (index / 4) + 2 * t + index % 2, 8 * (slot / 2) + r};
}

// The scale of a cell in its group's 64 bytes: those of a lane's cells side by side.
TQ_FORMAT_FN int scale_place(Side side, int cell) {
    const int tile = cell / 16, half = cell / 8 % 2, r = cell % 8;
    return side == Side::kKey ? 8 * r + 2 * tile + half : 8 * r + 4 * half + tile;
}

// The word (of all words of a head's units, 32 lanes each).
TQ_FORMAT_FN int word_offset(int n_words, int word, int lane) {
    const int whole = n_words / 4 * 4;
    if (word < whole) return word / 4 * 512 + lane * 16 + word % 4 * 4;
    return whole / 4 * 512 + (lane * (n_words - whole) + word % 4) * 4;
}

// What is stored of a code, and the code that it stands for: from 5 to 7 bits the codes of positive levels are
// reversed, so that the bits below the sign are the magnitude's index, from the largest on. Code 0 is 0: zero-filled
// memory holds what the CPU's does.
TQ_FORMAT_FN uint32_t symbol_of_code(int bits, uint32_t code) {
    const uint32_t half = 1u << (bits - 1);
    return bits >= 5 && bits <= 7 && code >= half ? code ^ (half - 1) : code;
}
TQ_FORMAT_FN uint32_t code_of_symbol(int bits, uint32_t symbol) {
    return symbol_of_code(bits, symbol);
}

// Where a bit of a symbol lies in the words of a lane's unit.
struct BitPlace {
    int word, bit;
};
TQ_FORMAT_FN BitPlace bit_place(int bits, int slot, int index, int bit) {
    if (bits == 8) return {2 * slot + index / 4, 8 * (index % 4) + bit};
    if (bits == 2) return {slot / 2, 4 * index + 2 * (slot % 2) + bit};
    if (bits == 3 && slot == 3) return {bit, 4 * index + 3};
    if (bit < 4) return {slot, 4 * index + bit};
    return {bit == bits - 1 ? 4 : bit + 1, 4 * index + slot};  // the sign in word 4, then bits 4 and 5 of the index
}

// Symbols in and out of the words of a lane's unit.
TQ_FORMAT_FN uint32_t symbol_at(int bits, const uint32_t* words, int slot, int index) {
    uint32_t symbol = 0;
    for (int bit = 0; bit < bits; ++bit) {
        const BitPlace at = bit_place(bits, slot, index, bit);
        symbol |= (words[at.word] >> at.bit & 1) << bit;
    }
    return symbol;
}
TQ_FORMAT_FN void insert_symbol(int bits, uint32_t* words, int slot, int index, uint32_t symbol) {
    for (int bit = 0; bit < bits; ++bit) {
        const BitPlace at = bit_place(bits, slot, index, bit);
        words[at.word] |= (symbol >> bit & 1) << at.bit;
    }
}

}  // namespace tq::cuda
