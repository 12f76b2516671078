// MLX's Metal device without Metal: the calls that plugins/mlx makes, of the same names and types as in MLX's own
// header (a test compiles the same sources against that one), whose dispatches run the shaders on the CPU, lane by lane
// (tests/metal). So buffer indices, sizes, grids and the text that would be compiled are what is executed.
#pragma once

#include <functional>
#include <set>
#include <string>

#include <mlx/mlx.h>

namespace NS {
using UInteger = unsigned long;
}

namespace MTL {

struct Size {
    NS::UInteger width, height, depth;
    Size(NS::UInteger w, NS::UInteger h, NS::UInteger d) : width(w), height(h), depth(d) {}
};
class Library;
class ComputePipelineState;

}  // namespace MTL

namespace mlx::core {

namespace metal {

class CommandEncoder {
  public:
    void set_compute_pipeline_state(MTL::ComputePipelineState* kernel);
    void set_input_array(const array& a, int idx, int64_t offset = 0);
    void set_output_array(array& a, int idx, int64_t offset = 0);
    template <typename T>
    void set_bytes(const T* v, int n, int idx) {
        set_bytes_of(v, static_cast<size_t>(n) * sizeof(T), idx);
    }
    void add_temporary(array arr);
    void dispatch_threadgroups(MTL::Size grid_dims, MTL::Size group_dims);

  private:
    void set_bytes_of(const void* data, size_t bytes, int idx);
};

class Device {
  public:
    MTL::Library* get_library(const std::string& name, const CompileOptions& compile_options,
                              const std::function<std::string(void)>& builder);
    MTL::ComputePipelineState* get_kernel(const std::string& base_name, MTL::Library* mtl_lib);
};

Device& device(mlx::core::Device);
CommandEncoder& get_command_encoder(Stream s);

}  // namespace metal
}  // namespace mlx::core

namespace tq::test {

// Whether nodes are made for a GPU.
extern bool on_gpu;
// What the fake device has been asked to compile: name, whole text.
const std::set<std::pair<std::string, std::string>>& compiled_libraries();
// How many kernels it has run.
int n_dispatches();

}  // namespace tq::test
