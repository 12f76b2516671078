// Records in the CPU's order from plain codes and scales, and back: how a cache moves between engines.
#pragma once

#include "turboquant/format/plain_block.h"

namespace tq {

void pack_record(const RowFormat& format, const PlainBlock& block, uint8_t* record);
PlainBlock unpack_record(const RowFormat& format, const uint8_t* record);

}  // namespace tq
