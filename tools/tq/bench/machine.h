// The machine that the numbers are of.
#pragma once

#include <cstddef>
#include <string>

namespace tq::tool {

// Hardware threads that this process may use.
int usable_cores();

struct Machine {
    std::string cpu;             // name; "unknown" where the system does not say
    int cores = 0;               // cores that this process may use, hardware threads counted one by one
    size_t l3_bytes = 0;         // the largest cache that one core sees
    size_t available_bytes = 0;  // bytes of memory that are available now
};

Machine this_machine();

}  // namespace tq::tool
