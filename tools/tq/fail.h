// A command that can't do what was asked ends like this.
#pragma once

#include <cstdio>
#include <string>

#include <fmt/format.h>

namespace tq::tool {

// Says why on stderr. Returns the exit status.
inline int fail(int status, const std::string& message) {
    fmt::print(stderr, "tq: error: {}\n", message);
    return status;
}

}  // namespace tq::tool
