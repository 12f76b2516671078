#include "ggml_api.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "shared_library.h"

namespace tq::tool {
namespace {

void bind_base(Binder& bind, GgmlApi& api) {
    bind("ggml_version", api.version);
    bind("ggml_commit", api.commit);
    bind("ggml_type_name", api.type_name);
    bind("ggml_blck_size", api.blck_size);
    bind("ggml_row_size", api.row_size);
    bind("ggml_log_get", api.log_get);
    bind("ggml_log_set", api.log_set);
    bind("ggml_init", api.init);
    bind("ggml_free", api.free);
    bind("ggml_tensor_overhead", api.tensor_overhead);
    bind("ggml_graph_overhead_custom", api.graph_overhead_custom);
    bind("ggml_new_graph_custom", api.new_graph_custom);
    bind("ggml_new_tensor_2d", api.new_tensor_2d);
    bind("ggml_view_3d", api.view_3d);
    bind("ggml_flash_attn_ext", api.flash_attn_ext);
    bind("ggml_set_rows", api.set_rows);
    bind("ggml_build_forward_expand", api.build_forward_expand);
    bind("ggml_quantize_chunk", api.quantize_chunk);
    bind("ggml_threadpool_params_default", api.threadpool_params_default);
    bind("ggml_get_type_traits", api.get_type_traits);
    bind("ggml_set_name", api.set_name);
}

void bind_gguf(Binder& bind, GgmlApi::Gguf& api) {
    bind("gguf_init_from_file", api.init);
    bind("gguf_free", api.free);
    bind("gguf_find_key", api.find_key);
    bind("gguf_get_kv_type", api.get_kv_type);
    bind("gguf_type_name", api.type_name);
    bind("gguf_get_arr_type", api.get_arr_type);
    bind("gguf_get_arr_n", api.get_arr_n);
    bind("gguf_get_arr_data", api.get_arr_data);
    bind("gguf_get_val_data", api.get_val_data);
    bind("gguf_get_val_str", api.get_val_str);
    bind("gguf_get_n_tensors", api.get_n_tensors);
    bind("gguf_get_data_offset", api.get_data_offset);
    bind("gguf_get_tensor_offset", api.get_tensor_offset);
    bind("gguf_get_tensor_size", api.get_tensor_size);
    bind("gguf_find_tensor", api.find_tensor);
    bind("gguf_get_tensor_type", api.get_tensor_type);
    bind("gguf_init_empty", api.init_empty);
    bind("gguf_set_val_str", api.set_val_str);
    bind("gguf_set_val_u32", api.set_val_u32);
    bind("gguf_add_tensor", api.add_tensor);
    bind("gguf_write_to_file", api.write_to_file);
}

void bind_cpu(Binder& bind, GgmlCpuApi& api) {
    bind("ggml_cpu_init", api.init);
    bind("ggml_graph_plan", api.graph_plan);
    bind("ggml_graph_compute", api.graph_compute);
    bind("ggml_threadpool_new", api.threadpool_new);
    bind("ggml_threadpool_free", api.threadpool_free);
    bind("ggml_threadpool_pause", api.threadpool_pause);
    bind("ggml_threadpool_resume", api.threadpool_resume);
}

std::vector<std::string> cpu_features(void* library) {
    std::vector<std::string> features;
    for (const char* name : {"sse3", "avx", "avx2", "bmi2", "f16c", "fma", "avx_vnni", "avx512", "avx512_vbmi",
                             "avx512_vnni", "avx512_bf16", "amx_int8", "neon", "dotprod", "matmul_int8", "sve"}) {
        const std::string symbol = std::string("ggml_cpu_has_") + name;
        const auto has = reinterpret_cast<int (*)()>(dlsym(library, symbol.c_str()));
        if (has && has()) features.emplace_back(name);
    }
    return features;
}

std::vector<std::string> folders(const std::string& dir) {
    if (!dir.empty()) return {dir};
    return {TQ_GGML_DIR, ""};
}

std::string in_folder(const std::string& folder, const std::string& name) {
    return folder.empty() ? name : (std::filesystem::absolute(folder) / name).string();
}

std::string where(const std::string& dir) {
    return dir.empty() ? std::string(TQ_GGML_DIR) + " or on the system's library path" : dir;
}

Result<GgmlApi> load_base(const std::string& dir) {
    std::vector<std::string> paths;
    for (const std::string& folder : folders(dir)) {
        for (const char* name : {"libggml-base.so", "libggml-base.so.0"}) paths.push_back(in_folder(folder, name));
    }
    const SharedLibrary library = open_first(paths);
    if (!library.handle) {
        return Status(Error::kUnsupported, "no usable libggml-base.so in " + where(dir) +
                                               (library.error.empty() ? "" : " (" + library.error + ")"));
    }
    GgmlApi api;
    Binder bind(library.handle);
    bind_base(bind, api);
    bind_gguf(bind, api.gguf);
    if (!bind.missing().empty()) {
        return Status(Error::kUnsupported, "the libggml-base.so in " + where(dir) + " has no " + bind.missing());
    }
    api.base_path = path_of(reinterpret_cast<const void*>(api.version));
    return api;
}

// The variants of a GGML_CPU_ALL_VARIANTS build say themselves how well they suit this machine; 0 is not at all.
std::optional<std::string> best_variant(const std::filesystem::path& folder) {
    std::optional<std::string> best;
    int best_score = 0;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
        const std::string name = entry.path().filename();
        if (!name.starts_with("libggml-cpu-") || entry.path().extension() != ".so") continue;
        void* handle = dlopen(entry.path().c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!handle) continue;
        const auto score = reinterpret_cast<int (*)()>(dlsym(handle, "ggml_backend_score"));
        if (const int value = score ? score() : 0; value > best_score) {
            best_score = value;
            best = entry.path();
        }
        dlclose(handle);
    }
    return best;
}

Result<GgmlCpuApi> load_cpu(const std::string& dir) {
    const Result<const GgmlApi*> base = ggml_api(dir);
    if (!base.ok()) return base.status();
    // Beside libggml-base and nowhere else: the two must be of one build.
    const std::filesystem::path folder = std::filesystem::path(base.value()->base_path).parent_path();
    std::vector<std::string> paths = {folder / "libggml-cpu.so", folder / "libggml-cpu.so.0"};
    if (auto variant = best_variant(folder)) paths.push_back(*variant);
    const SharedLibrary library = open_first(paths);
    if (!library.handle) {
        return Status(Error::kUnsupported, "no usable libggml-cpu*.so in " + folder.string() +
                                               (library.error.empty() ? "" : " (" + library.error + ")"));
    }
    GgmlCpuApi api;
    Binder bind(library.handle);
    bind_cpu(bind, api);
    if (!bind.missing().empty()) {
        return Status(Error::kUnsupported, "the libggml-cpu in " + folder.string() + " has no " + bind.missing());
    }
    api.path = path_of(reinterpret_cast<const void*>(api.init));
    api.features = cpu_features(library.handle);
    api.init();
    return api;
}

template <class Api>
Result<const Api*> pointer_to(const Result<Api>& loaded) {
    if (!loaded.ok()) return loaded.status();
    return &loaded.value();
}

}  // namespace

Result<const GgmlApi*> ggml_api(const std::string& dir) {
    static const Result<GgmlApi> loaded = load_base(dir);
    return pointer_to(loaded);
}

Result<const GgmlCpuApi*> ggml_cpu_api(const std::string& dir) {
    static const Result<GgmlCpuApi> loaded = load_cpu(dir);
    return pointer_to(loaded);
}

}  // namespace tq::tool
