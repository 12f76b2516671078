// lanes::run on an NVIDIA GPU: a SIMD group is a warp. Nothing is checked here but the driver's errors;
// compute-sanitizer looks at the rest.
#include <map>

#include <cuda.h>

#include "lanes/dispatch.h"
#include "nvidia/buffers.h"

// The shaders as ptxas made them (CMakeLists.txt).
extern "C" const char metal_on_nvidia_cubin[];
extern "C" const msl_library msl_library_metal_on_nvidia = {};

namespace tq::lanes {
namespace {

struct Error {
    std::string text;
};

void check(CUresult result, const char* what) {
    if (result == CUDA_SUCCESS) return;
    const char* text = nullptr;
    cuGetErrorString(result, &text);
    throw Error{std::string(what) + ": " + (text ? text : "unknown error")};
}

CUmodule load_module() {
    CUdevice gpu;
    CUcontext context;
    CUmodule module;
    check(cuInit(0), "cuInit");
    check(cuDeviceGet(&gpu, 0), "cuDeviceGet");
    check(cuDevicePrimaryCtxRetain(&context, gpu), "cuDevicePrimaryCtxRetain");
    check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    check(cuModuleLoadData(&module, metal_on_nvidia_cubin), "cuModuleLoadData");
    return module;
}

// The GPU's copies of a launch's arrays. One that is bound twice has one copy.
class Copies {
  public:
    explicit Copies(const std::vector<Buffer>& buffers) : buffers_(buffers) {
        for (const Buffer& b : buffers_) {
            if (copies_.count(b.data)) continue;
            CUdeviceptr& copy = copies_[b.data];
            check(cuMemAlloc(&copy, b.bytes), "cuMemAlloc");
            check(cuMemcpyHtoD(copy, b.data, b.bytes), "cuMemcpyHtoD");
        }
    }
    ~Copies() {
        for (const auto& copy : copies_) cuMemFree(copy.second);
    }
    Copies(const Copies&) = delete;

    msl::buffers addresses() const {
        msl::buffers result = {};
        for (const Buffer& b : buffers_) result.at[b.index] = reinterpret_cast<const void*>(copies_.at(b.data));
        return result;
    }
    void fetch_written() const {
        for (const Buffer& b : buffers_)
            if (b.writable) check(cuMemcpyDtoH(b.data, copies_.at(b.data), b.bytes), "cuMemcpyDtoH");
    }

  private:
    const std::vector<Buffer>& buffers_;
    std::map<const void*, CUdeviceptr> copies_;
};

void launch_on_gpu(const Launch& launch) {
    static const CUmodule module = load_module();
    CUfunction kernel;
    check(cuModuleGetFunction(&kernel, module, launch.kernel.c_str()), "cuModuleGetFunction");
    const Copies copies(launch.buffers);
    msl::buffers addresses = copies.addresses();
    void* parameters[] = {&addresses};
    const Size3 n = launch.grid, t = launch.threadgroup;
    check(cuLaunchKernel(kernel, n.x / t.x, n.y / t.y, n.z / t.z, t.x, t.y, t.z, 0, nullptr, parameters, nullptr),
          "cuLaunchKernel");
    check(cuCtxSynchronize(), "cuCtxSynchronize");
    copies.fetch_written();
}

}  // namespace

std::vector<Report> run(const msl_library&, const Launch& launch) {
    try {
        launch_on_gpu(launch);
        return {};
    } catch (const Error& error) {
        return {{Fault::kLaunch, error.text}};
    }
}

}  // namespace tq::lanes
