// Shared libraries that are found at run time.
#pragma once

#include <dlfcn.h>

#include <string>
#include <vector>

namespace tq::tool {

struct SharedLibrary {
    void* handle = nullptr;  // never closed
    std::string error;       // why it is null; empty if no file was there
};

// The first path that can be loaded; without a '/' it is looked for where the system looks.
SharedLibrary open_first(const std::vector<std::string>& paths);

// Full path of the file that a loaded symbol came from.
std::string path_of(const void* symbol);

// Binds names of one library, and of those that it needs; remembers the first that is missing.
class Binder {
  public:
    explicit Binder(void* library) : library_(library) {}

    template <class Function>
    void operator()(const char* name, Function& function) {
        function = reinterpret_cast<Function>(dlsym(library_, name));
        if (!function && missing_.empty()) missing_ = name;
    }
    const std::string& missing() const { return missing_; }

  private:
    void* library_;
    std::string missing_;
};

}  // namespace tq::tool
