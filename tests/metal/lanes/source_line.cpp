#include "source_line.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>

namespace tq::lanes {
namespace {

std::string addr2line(const void* code) {
    Dl_info module;
    if (dladdr(code, &module) == 0) return "";
    const auto offset = reinterpret_cast<uintptr_t>(code) - reinterpret_cast<uintptr_t>(module.dli_fbase) - 1;
    char command[1200];
    std::snprintf(command, sizeof(command), "addr2line -s -e '%s' %#zx 2>/dev/null", module.dli_fname, size_t{offset});
    std::FILE* output = popen(command, "r");
    if (output == nullptr) return "";
    char line[200] = "";
    const bool known = std::fgets(line, sizeof(line), output) != nullptr && line[0] != '?';
    pclose(output);
    return known ? " (" + std::string(line, std::strcspn(line, " \n")) + ")" : "";
}

}  // namespace

const std::string& line_of(const void* code) {
    static std::map<const void*, std::string> known;  // a process is slow to start
    const auto place = known.find(code);
    return place != known.end() ? place->second : known[code] = addr2line(code);
}

}  // namespace tq::lanes
