// Messages to the user, through the host's ggml log callback.
#pragma once

#include <string>

#include <ggml.h>

namespace tq::plugin {

void log(ggml_log_level level, const std::string& message);

// The same without allocating: "turboquant: <what>: <why>", for messages about a lack of memory.
void log_nothrow(ggml_log_level level, const char* what, const char* why) noexcept;

// Each distinct message is said once in the life of the process.
void log_once(ggml_log_level level, const std::string& message);

}  // namespace tq::plugin
