// ggml's CPU backend.
#pragma once

#include <string>
#include <vector>

#include <ggml-backend.h>

#include "turboquant/base/status.h"

namespace tq::tool {

// Loads ggml's backends where they are modules beside libllama. Error: kUnsupported.
Result<ggml_backend_dev_t> cpu_device();

// The instruction sets that it was built for, by ggml's names.
std::vector<std::string> cpu_features(ggml_backend_dev_t cpu);

}  // namespace tq::tool
