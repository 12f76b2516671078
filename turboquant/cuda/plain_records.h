// Records in the GPU's order from plain codes and scales, and back, on the host: how a cache moves between engines, and
// what the kernels are tested against.
#pragma once

#include "turboquant/cuda/record_order.h"
#include "turboquant/format/plain_block.h"

namespace tq::cuda {

// Says why records of this format cannot be in the GPU's order, or "".
std::string unsupported_reason(const RowFormat& format, int head_dim);

// For a format that unsupported_reason has nothing against.
RecordOrder record_order(const RowFormat& format, int head_dim);

void pack_record(const RowFormat& format, int head_dim, const PlainBlock& block, uint8_t* record);
PlainBlock unpack_record(const RowFormat& format, int head_dim, const uint8_t* record);

}  // namespace tq::cuda
