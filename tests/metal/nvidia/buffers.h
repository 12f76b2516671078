// A kernel's only parameter on an NVIDIA GPU: addresses by [[buffer(n)]].
#pragma once

namespace msl {

struct buffers {
    const void* at[24];
};

}  // namespace msl
