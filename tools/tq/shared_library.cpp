#include "shared_library.h"

#include <filesystem>
#include <system_error>

namespace tq::tool {

SharedLibrary open_first(const std::vector<std::string>& paths) {
    SharedLibrary library;
    for (const std::string& path : paths) {
        std::error_code ignored;
        if (path.find('/') != std::string::npos && !std::filesystem::exists(path, ignored)) continue;
        library.handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library.handle) return library;
        library.error = dlerror();
    }
    return library;
}

std::string path_of(const void* symbol) {
    Dl_info info{};
    return dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : "";
}

}  // namespace tq::tool
