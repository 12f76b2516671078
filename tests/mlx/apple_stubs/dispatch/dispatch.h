// Names of Apple's headers, as far as metal-cpp needs them to be looked at by a compiler elsewhere
// (scripts/test-mlx).
#pragma once

typedef struct dispatch_queue_s* dispatch_queue_t;
typedef struct dispatch_data_s* dispatch_data_t;
