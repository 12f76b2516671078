// A layer's output projection, from the model's file: how much each channel of attention's output matters.
#pragma once

#include <string>
#include <vector>

#include "turboquant/base/status.h"

namespace tq::tool {

// Returns the sum of squares of each column of the tensor blk.<layer>.attn_output.weight, one for each channel of each
// query head. Empty if the file has no such tensor, or not of n_columns. Error: kInvalidArgument; starts with the
// file's name.
Result<std::vector<double>> output_column_energies(const std::string& file, int layer, int64_t n_columns);

}  // namespace tq::tool
