// Where a stream's nodes run. A file of its own, since tests of the GPU's path on machines without one link another.
#pragma once

#include <mlx/mlx.h>

namespace tq::mlx_plugin {

bool runs_on_gpu(const mlx::core::Stream& stream);

}  // namespace tq::mlx_plugin
