// The device "TurboQuant": a ggml device (of type IGPU) that hands everything but KV tensors to the CPU backend.
#pragma once

#include <ggml-backend.h>

#include "config.h"

namespace tq::plugin {

inline constexpr const char* kDeviceName = "TurboQuant";
inline constexpr const char* kVersion = TQ_VERSION;

// GGML_BACKEND_API_VERSION of the host, as its CPU backend says; 0 if it has none.
int host_api_version();

// Says whether this host's ggml lays out tensors and graphs and numbers its ops and types as the headers that this
// plugin was compiled with.
bool host_is_compatible();

// The registry with the device, for a host that speaks this GGML_BACKEND_API_VERSION (2 or 3). Made once, lives
// forever.
ggml_backend_reg_t make_registry(int api_version, const Config& config);

}  // namespace tq::plugin
