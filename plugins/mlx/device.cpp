#include "device.h"

namespace tq::mlx_plugin {

bool runs_on_gpu(const mlx::core::Stream& stream) {
    return stream.device == mlx::core::Device::gpu;
}

}  // namespace tq::mlx_plugin
