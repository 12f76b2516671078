#include "file.h"

#include <filesystem>
#include <fstream>
#include <sstream>

namespace tq::tool {

Result<std::string> read_file(const std::string& path) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) return Status(Error::kInvalidArgument, path + ": is a folder");
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    if (!in || !text) return Status(Error::kInvalidArgument, path + ": can't be read");
    return text.str();
}

}  // namespace tq::tool
