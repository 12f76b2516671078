// ggml calls the plugin from C, so no exception may leave a callback.
#pragma once

#include <exception>
#include <new>
#include <string>

#include "log.h"

namespace tq::plugin {

// Calls fn and returns what it returns; `otherwise`, once logged, where it throws. `what` names what then was not done.
template <class R, class Fn>
R guarded(const char* what, R otherwise, Fn fn) noexcept {
    try {
        return fn();
    } catch (const std::bad_alloc&) {
        log_nothrow(GGML_LOG_LEVEL_ERROR, what, "there is not enough memory");
    } catch (const std::exception& error) {
        log_nothrow(GGML_LOG_LEVEL_ERROR, what, error.what());
    }
    return otherwise;
}

template <class Fn>
void guarded(const char* what, Fn fn) noexcept {
    guarded(what, 0, [&] {
        fn();
        return 0;
    });
}

}  // namespace tq::plugin
