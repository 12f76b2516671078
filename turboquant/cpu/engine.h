// The CPU as an engine.
#pragma once

#include "turboquant/base/isa.h"
#include "turboquant/cache/engine.h"

namespace tq {

// isa: one of available_isas().
Engine cpu_engine(Isa isa);

}  // namespace tq
