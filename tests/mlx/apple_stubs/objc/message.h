// Names of Apple's headers, as far as metal-cpp needs them to be looked at by a compiler elsewhere
// (scripts/test-mlx).
#pragma once

#include <objc/runtime.h>
extern "C" {
void objc_msgSend(void);
void objc_msgSend_fpret(void);
void objc_msgSend_stret(void);
}
