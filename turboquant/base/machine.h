// What the processor and the operating system offer. Apart from isa.cpp, so that a test can stand in for it.
#pragma once

#include "turboquant/base/isa.h"

namespace tq {

// Whether this build has kernels for `isa` and this machine runs them.
bool machine_has(Isa isa);

}  // namespace tq
