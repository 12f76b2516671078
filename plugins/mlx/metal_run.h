// Carries out the launches of turboquant/metal/launch.h through MLX's command encoder. Shaders are compiled from their
// text when they are first needed; MLX keeps them by name.
#pragma once

#include <map>
#include <vector>

#include "arrays.h"
#include "turboquant/metal/launch.h"

namespace tq::mlx_plugin {

class MetalRun {
  public:
    explicit MetalRun(mx::Stream stream) : stream_(stream) {}

    void read(int operand, const mx::array& array) { arrays_.insert_or_assign(operand, array); }
    void write(int operand, const mx::array& array) { arrays_.insert_or_assign(operand, array); }
    // Memory that the launches write before they read it.
    void make(int operand, size_t bytes);
    // A copy of host memory.
    template <class T>
    void give(int operand, const std::vector<T>& values) {
        give_bytes(operand, values.data(), values.size() * sizeof(T));
    }

    // params: bound as bytes, at kBufferParams.
    template <class Params>
    void launch(const MetalLaunch& launch, const Params& params) {
        launch_with(launch, &params, sizeof params);
    }

  private:
    mx::array& temporary(int operand, size_t bytes);
    void give_bytes(int operand, const void* data, size_t bytes);
    void launch_with(const MetalLaunch& launch, const void* params, size_t params_bytes);

    mx::Stream stream_;
    std::map<int, mx::array> arrays_;  // by operand
};

}  // namespace tq::mlx_plugin
