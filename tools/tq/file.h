// Reading files of the user's.
#pragma once

#include <string>

#include "turboquant/base/status.h"

namespace tq::tool {

// Error: kInvalidArgument; the message starts with the file's name.
Result<std::string> read_file(const std::string& path);

}  // namespace tq::tool
