#include "turboquant/cuda/plain_records.h"

#include <cstring>
#include <string>

#include "turboquant/format/rotation.h"

namespace tq::cuda {
namespace {

// Of 8 codes of a center the first four are in the low bits of 4 bytes, the others in the high bits.
size_t first_code_of_center_byte(size_t byte) {
    return byte / 4 * 8 + byte % 4;
}

// The words of one lane's unit of a head, gathered from where they lie in its codes.
struct LaneWords {
    uint32_t word[kMaxBits] = {};

    template <class Fn>
    static void for_words(const RecordOrder& order, int unit, int lane, Fn fn) {
        const int n_words = order.n_units() * order.bits;
        for (int k = 0; k < order.bits; ++k) fn(k, word_offset(n_words, unit * order.bits + k, lane));
    }
    void load(const RecordOrder& order, const uint8_t* codes, int unit, int lane) {
        for_words(order, unit, lane, [&](int k, int at) { std::memcpy(&word[k], codes + at, sizeof word[k]); });
    }
    void store(const RecordOrder& order, uint8_t* codes, int unit, int lane) const {
        for_words(order, unit, lane, [&](int k, int at) { std::memcpy(codes + at, &word[k], sizeof word[k]); });
    }
};

// Calls fn(head, unit, lane) for all words of a record.
template <class Fn>
void for_lanes(const RecordOrder& order, Fn fn) {
    for (int head = 0; head < order.n_head; ++head)
        for (int unit = 0; unit < order.n_units(); ++unit)
            for (int lane = 0; lane < kLanes; ++lane) fn(head, unit, lane);
}

// Calls fn(slot, index, index of the code in a PlainBlock) for a lane's codes.
template <class Fn>
void for_codes(const RecordOrder& order, int64_t n_embd, int head, int unit, int lane, Fn fn) {
    for (int slot = 0; slot < kSlots; ++slot)
        for (int index = 0; index < kSlotCodes; ++index) {
            const CodeOf code = code_of(order.side, lane, slot, index);
            fn(slot, index,
               static_cast<size_t>(code.cell * n_embd + head * order.head_dim + unit * kStepDims + code.dim));
        }
}

}  // namespace

std::string unsupported_reason(const RowFormat& format, int head_dim) {
    if (format.trellis()) return "the CUDA engine has no trellis codes yet";
    if (head_dim < kMinHeadDim || head_dim > kMaxHeadDim || head_dim % kStepDims != 0)
        return "head_dim is " + std::to_string(head_dim) + "; supported: multiples of 16 from 16 to 512";
    if (format.n_embd % head_dim != 0)
        return "n_embd " + std::to_string(format.n_embd) + " is not a multiple of head_dim " + std::to_string(head_dim);
    return "";
}

RecordOrder record_order(const RowFormat& format, int head_dim) {
    return {format.side, format.bits, head_dim, static_cast<int>(format.n_embd / head_dim)};
}

void pack_record(const RowFormat& format, int head_dim, const PlainBlock& block, uint8_t* record) {
    const RecordOrder order = record_order(format, head_dim);
    std::memset(record, 0, format.block_bytes());
    for_lanes(order, [&](int head, int unit, int lane) {
        LaneWords words;
        for_codes(order, format.n_embd, head, unit, lane, [&](int slot, int index, size_t code) {
            insert_symbol(order.bits, words.word, slot, index, symbol_of_code(order.bits, block.codes[code]));
        });
        words.store(order, record + order.codes_offset(head), unit, lane);
    });
    for (int cell = 0; cell < kBlockCells; ++cell)
        for (int group = 0; group < order.n_groups(); ++group)
            record[order.scales_offset(group) + scale_place(order.side, cell)] =
                block.scales[static_cast<size_t>(cell * order.n_groups() + group)];
    if (!format.centered()) return;
    uint8_t* center = record + order.center_offset();
    for (size_t byte = 0; byte < format.center_codes_bytes(); ++byte) {
        const size_t first = first_code_of_center_byte(byte);
        center[byte] =
            static_cast<uint8_t>((block.center_codes[first] & 15) | block.center_codes[first + 4] << kCenterBits);
    }
    std::memcpy(center + format.center_codes_bytes(), block.center_scales.data(), block.center_scales.size());
}

PlainBlock unpack_record(const RowFormat& format, int head_dim, const uint8_t* record) {
    const RecordOrder order = record_order(format, head_dim);
    PlainBlock block(format);
    for_lanes(order, [&](int head, int unit, int lane) {
        LaneWords words;
        words.load(order, record + order.codes_offset(head), unit, lane);
        for_codes(order, format.n_embd, head, unit, lane, [&](int slot, int index, size_t code) {
            block.codes[code] =
                static_cast<uint8_t>(code_of_symbol(order.bits, symbol_at(order.bits, words.word, slot, index)));
        });
    });
    for (int cell = 0; cell < kBlockCells; ++cell)
        for (int group = 0; group < order.n_groups(); ++group)
            block.scales[static_cast<size_t>(cell * order.n_groups() + group)] =
                record[order.scales_offset(group) + scale_place(order.side, cell)];
    if (!format.centered()) return block;
    const uint8_t* center = record + order.center_offset();
    for (size_t byte = 0; byte < format.center_codes_bytes(); ++byte) {
        const size_t first = first_code_of_center_byte(byte);
        block.center_codes[first] = center[byte] & 15;
        block.center_codes[first + 4] = center[byte] >> kCenterBits;
    }
    std::memcpy(block.center_scales.data(), center + format.center_codes_bytes(), block.center_scales.size());
    return block;
}

}  // namespace tq::cuda
