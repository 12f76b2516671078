// Names of Apple's headers, as far as metal-cpp needs them to be looked at by a compiler elsewhere
// (scripts/test-mlx).
#pragma once

typedef struct CGColorSpace* CGColorSpaceRef;
