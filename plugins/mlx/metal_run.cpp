#include "metal_run.h"

#include <algorithm>
#include <cstring>

#include <mlx/backend/metal/device.h>

namespace tq::mlx_plugin {

mx::array& MetalRun::temporary(int operand, size_t bytes) {
    mx::array made({static_cast<int>(std::max<size_t>(bytes, 1))}, mx::uint8, nullptr, {});
    made.set_data(mx::allocator::malloc(made.nbytes()));
    mx::metal::get_command_encoder(stream_).add_temporary(made);
    return arrays_.insert_or_assign(operand, std::move(made)).first->second;
}

void MetalRun::make(int operand, size_t bytes) {
    temporary(operand, bytes);
}

void MetalRun::give_bytes(int operand, const void* data, size_t bytes) {
    mx::array& array = temporary(operand, bytes);
    if (bytes > 0) std::memcpy(array.data<char>(), data, bytes);
}

void MetalRun::launch_with(const MetalLaunch& launch, const void* params, size_t params_bytes) {
    auto& device = mx::metal::device(stream_.device);
    // CompileOptions' own math mode is the safe one, which the shaders' bits depend on.
    auto* library = device.get_library("turboquant_" + launch.kernel, mx::CompileOptions{},
                                       [&] { return metal_source() + launch.instantiation; });
    auto& encoder = mx::metal::get_command_encoder(stream_);
    encoder.set_compute_pipeline_state(device.get_kernel(launch.kernel, library));
    for (const MetalBinding& binding : launch.bindings) {
        if (binding.operand == kBufferParams)
            encoder.set_bytes(static_cast<const char*>(params), static_cast<int>(params_bytes), binding.index);
        else if (binding.written)
            encoder.set_output_array(arrays_.at(binding.operand), binding.index);
        else
            encoder.set_input_array(arrays_.at(binding.operand), binding.index);
    }
    const auto size = [](const uint32_t(&n)[3]) { return MTL::Size(n[0], n[1], n[2]); };
    encoder.dispatch_threadgroups(size(launch.grid), size(launch.threads));
}

}  // namespace tq::mlx_plugin
