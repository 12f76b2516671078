// Names of Apple's headers, as far as metal-cpp needs them to be looked at by a compiler elsewhere
// (scripts/test-mlx).
#pragma once

#include <cstdint>
typedef const void* CFTypeRef;
typedef double CFTimeInterval;
typedef unsigned long CFTypeID;
typedef const struct __CFString* CFStringRef;
