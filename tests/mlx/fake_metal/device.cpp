#include "mlx/backend/metal/device.h"

#include <stdexcept>
#include <vector>

#include "device.h"
#ifdef TQ_FAKE_METAL_RUNS
#include <gtest/gtest.h>

#include "lanes/dispatch.h"
TQ_METAL_LIBRARY(metal_mlx);
#endif

namespace {

std::set<std::pair<std::string, std::string>> libraries;
int dispatches = 0;

struct Binding {
    int index;
    void* data;
    size_t bytes;
    bool written;
};
std::string kernel;
std::vector<Binding> bindings;
std::vector<std::vector<char>> copies;      // of what set_bytes was given
std::vector<mlx::core::array> temporaries;  // until their dispatch has run

void bind(int index, const mlx::core::array& array, int64_t offset, bool written) {
    auto* data = const_cast<char*>(array.data<char>()) + offset;
    bindings.push_back({index, data, array.nbytes() - static_cast<size_t>(offset), written});
}

// The kernels' names, by what the library would return for them.
std::set<std::string>& names() {
    static std::set<std::string> all;
    return all;
}

}  // namespace

namespace tq::test {

bool on_gpu = false;

const std::set<std::pair<std::string, std::string>>& compiled_libraries() {
    return libraries;
}

int n_dispatches() {
    return dispatches;
}

}  // namespace tq::test

namespace tq::mlx_plugin {

bool runs_on_gpu(const mlx::core::Stream&) {
    return tq::test::on_gpu;
}

}  // namespace tq::mlx_plugin

namespace mlx::core::metal {

Device& device(mlx::core::Device) {
    static Device device;
    return device;
}

CommandEncoder& get_command_encoder(Stream) {
    static CommandEncoder encoder;
    return encoder;
}

MTL::Library* Device::get_library(const std::string& name, const CompileOptions& options,
                                  const std::function<std::string(void)>& builder) {
    if (options.math_mode != MathMode::Safe) throw std::runtime_error("the shaders' bits need safe math");
    return reinterpret_cast<MTL::Library*>(const_cast<std::string*>(&libraries.emplace(name, builder()).first->second));
}

// As Metal does, only a library that has the kernel gives it.
MTL::ComputePipelineState* Device::get_kernel(const std::string& base_name, MTL::Library* library) {
    const auto& text = *reinterpret_cast<std::string*>(library);
    if (text.find("[[host_name(\"" + base_name + "\")]]") == std::string::npos)
        throw std::runtime_error("no kernel " + base_name + " in its library");
    return reinterpret_cast<MTL::ComputePipelineState*>(const_cast<std::string*>(&*names().insert(base_name).first));
}

void CommandEncoder::set_compute_pipeline_state(MTL::ComputePipelineState* state) {
    kernel = *reinterpret_cast<std::string*>(state);
    bindings.clear();
    copies.clear();
}

void CommandEncoder::set_input_array(const array& a, int idx, int64_t offset) {
    bind(idx, a, offset, false);
}

void CommandEncoder::set_output_array(array& a, int idx, int64_t offset) {
    bind(idx, a, offset, true);
}

void CommandEncoder::set_bytes_of(const void* data, size_t bytes, int idx) {
    if (bytes > 4096) throw std::runtime_error("setBytes takes at most 4096 bytes");
    copies.emplace_back(static_cast<const char*>(data), static_cast<const char*>(data) + bytes);
    bindings.push_back({idx, copies.back().data(), bytes, false});
}

void CommandEncoder::add_temporary(array arr) {
    temporaries.push_back(std::move(arr));
}

void CommandEncoder::dispatch_threadgroups(MTL::Size grid, MTL::Size group) {
    ++dispatches;
#ifdef TQ_FAKE_METAL_RUNS
    tq::lanes::Launch launch;
    launch.kernel = kernel;
    for (const Binding& b : bindings) launch.buffers.push_back({b.index, b.data, b.bytes, b.written, nullptr});
    const auto size = [](const MTL::Size& s) {
        return tq::lanes::Size3{static_cast<uint32_t>(s.width), static_cast<uint32_t>(s.height),
                                static_cast<uint32_t>(s.depth)};
    };
    launch.threadgroups(size(grid), size(group));
    for (const tq::lanes::Report& report : tq::lanes::run(msl_library_metal_mlx, launch))
        ADD_FAILURE() << kernel << ": " << report.text;
#else
    (void)grid, (void)group;
#endif
}

}  // namespace mlx::core::metal
