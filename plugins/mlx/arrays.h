// Memory of graph nodes, and their arrays as the library takes them.
#pragma once

#include <stdexcept>
#include <string>

#include <mlx/mlx.h>

#include "turboquant/base/float_type.h"
#include "turboquant/base/status.h"
#include "turboquant/cache/packed_tensor.h"

namespace tq::mlx_plugin {

namespace mx = ::mlx::core;

inline void check(const Status& status) {
    if (!status.ok()) throw std::invalid_argument(status.message());
}

template <class T>
T& value_of(Result<T>& result) {
    check(result.status());
    return result.value();
}

std::string text_of(const mx::Shape& shape);

// The library's name of an array's elements. Throws for other types than f32, f16 and bf16; `what` names the array.
FloatType float_type_of(const mx::array& array, const char* what);

// Throws unless the elements lie one behind another; `what` names the array.
void check_contiguous(const mx::array& array, const char* what);

// Gives a uint8 array memory that begins at a multiple of kRecordAlignment, which malloc's need not.
void allocate_aligned(mx::array& out);

// Block records (n_stream, n_blocks, block_bytes) as the library reads them.
PackedTensor packed_tensor(const mx::array& records, const BlockCodec& codec);

}  // namespace tq::mlx_plugin
