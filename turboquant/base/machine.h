// This asks what the processor and the operating system offer. It is apart from isa.cpp, so that a test can stand in
// for it.
#pragma once

#include "turboquant/base/isa.h"

namespace tq {

// Says whether this build has kernels for `isa` and this machine runs them.
bool machine_has(Isa isa);

}  // namespace tq
