#include "log.h"

#include <cstdio>
#include <mutex>
#include <set>

namespace tq::plugin {

void log(ggml_log_level level, const std::string& message) {
    ggml_log_callback callback = nullptr;
    void* user_data = nullptr;
    ggml_log_get(&callback, &user_data);
    if (callback) callback(level, ("turboquant: " + message + "\n").c_str(), user_data);
}

void log_nothrow(ggml_log_level level, const char* what, const char* why) noexcept {
    ggml_log_callback callback = nullptr;
    void* user_data = nullptr;
    ggml_log_get(&callback, &user_data);
    char line[256];
    std::snprintf(line, sizeof line, "turboquant: %s: %s\n", what, why);
    if (callback) callback(level, line, user_data);
}

void log_once(ggml_log_level level, const std::string& message) {
    static std::mutex mutex;
    static std::set<std::string> said;
    {
        std::lock_guard lock(mutex);
        if (!said.insert(message).second) return;
    }
    log(level, message);
}

}  // namespace tq::plugin
