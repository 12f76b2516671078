// Where the block records of a sequence lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "turboquant/base/inline.h"
#include "turboquant/format/row_format.h"

namespace tq {

// The records of one sequence (a stream): one behind another, or wherever a block table says.
template <class Byte>
struct BlocksOf {
    Byte* first = nullptr;           // record 0
    size_t stride = 0;               // bytes from a record to the next
    const int32_t* table = nullptr;  // block b of the sequence is record table[b]; null: record b

    TQ_INLINE Byte* at(int64_t block) const {
        return first + static_cast<size_t>(table ? table[block] : block) * stride;
    }
    operator BlocksOf<const Byte>() const { return {first, stride, table}; }
    bool operator==(const BlocksOf&) const = default;
};
using Blocks = BlocksOf<uint8_t>;
using ConstBlocks = BlocksOf<const uint8_t>;

}  // namespace tq
