// Work that may end its process: llama.cpp takes files for honest, and what it does with one that is not must not be
// the end of tq.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace tq::tool {

struct ChildEnd {
    int status = 1;           // status that work returned
    std::string signal = {};  // what it died of, "signal 6 (Aborted)"; empty: it did not
};

// Runs work in a copy of this process, which must not have started threads. Empty if there can't be one.
std::optional<ChildEnd> in_child_process(const std::function<int()>& work);

}  // namespace tq::tool
