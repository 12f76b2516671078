#include "cache_cost.h"

#include <limits>

#include <fmt/format.h>

#if __has_include(<llama-ext.h>)
#include <llama-ext.h>  // llama.cpp's sources have this header; installations leave it out
#endif

namespace tq::tool {
namespace {

constexpr int kDefaultContext = 4096;  // context of models that name none

#if __has_include(<llama-ext.h>)
Result<size_t> cache_bytes(const llama_context* context) {
    size_t bytes = 0;
    for (const auto& [type, memory] : llama_get_memory_breakdown(context)) bytes += memory.context;
    return bytes;
}
#else
Result<size_t> cache_bytes(const llama_context*) {
    return Status(
        Error::kUnsupported,
        "this tq was built with an installed llama.cpp, whose headers do not say how to ask for the size of a "
        "cache (src/llama-ext.h does); build it with -DLLAMA_CPP_DIR=<llama.cpp's sources>");
}
#endif

CacheChoice choice(const char* name) {
    return CacheChoice::parse(name).value();
}

}  // namespace

Result<CacheCosts> CacheCosts::create(HostOptions options, int64_t n_ctx, int n_batch, int n_ubatch) {
    options.dry = true;
    Result<Host> host = Host::create(options);
    if (!host.ok()) return host.status();
    const int trained = llama_model_n_ctx_train(host->model());
    if (n_ctx == 0) n_ctx = trained > 0 ? trained : kDefaultContext;
    if (n_ctx > std::numeric_limits<int>::max()) {
        return Status(Error::kInvalidArgument,
                      fmt::format("a context of {} tokens is more than llama.cpp takes", n_ctx));
    }
    CacheCosts costs(std::move(host.value()), static_cast<int>(n_ctx), n_batch, n_ubatch);
    if (Status status = costs.measure_shape(); !status.ok()) return status;
    return costs;
}

Result<size_t> CacheCosts::bytes(const CacheChoice& cache) {
    const Result<Session> session = host_.open(cache, n_ctx_, n_batch_, n_ubatch_);
    if (!session.ok()) return session.status();
    shape_.n_cells = llama_n_ctx(session->context());
    return cache_bytes(session->context());
}

// A value takes 4 bytes in f32 and 2 in f16; what does not change between the two has a type of its own.
Status CacheCosts::measure_shape() {
    const Result<size_t> f32 = bytes(choice("f32")), f16 = bytes(choice("f16"));
    if (!f32.ok()) return f32.status();
    if (!f16.ok()) return f16.status();
    shape_.n_values = static_cast<int64_t>(f32.value() - f16.value()) / 2;
    shape_.fixed_bytes = f16.value() - 2 * static_cast<size_t>(shape_.n_values);
    return {};
}

Result<CacheCost> CacheCosts::cost(const CacheChoice& cache) {
    const Result<size_t> all = bytes(cache);
    if (!all.ok()) return all.status();
    if (shape_.n_values == 0) return CacheCost{all.value(), 0};
    const double variable = static_cast<double>(all.value() - shape_.fixed_bytes);
    return CacheCost{all.value(), 8 * variable / static_cast<double>(shape_.n_values)};
}

}  // namespace tq::tool
