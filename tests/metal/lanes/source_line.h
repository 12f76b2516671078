// Where in the text an address of shaders' code comes from.
#pragma once

#include <string>

namespace tq::lanes {

// " (file:line)", or nothing where binutils' addr2line cannot tell.
const std::string& line_of(const void* code);

}  // namespace tq::lanes
