// ggml, found at run time: tq works without it, and can be pointed at any build of it.
#pragma once

#include <string>
#include <vector>

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>
#include <gguf.h>

#include "turboquant/base/status.h"

namespace tq::tool {

// libggml-base: what tq uses of it. Members are named as in ggml, without the prefix.
struct GgmlApi {
    std::string base_path;

    decltype(&ggml_version) version = nullptr;
    decltype(&ggml_commit) commit = nullptr;
    decltype(&ggml_type_name) type_name = nullptr;
    decltype(&ggml_blck_size) blck_size = nullptr;
    decltype(&ggml_row_size) row_size = nullptr;
    decltype(&ggml_log_get) log_get = nullptr;
    decltype(&ggml_log_set) log_set = nullptr;

    decltype(&ggml_init) init = nullptr;
    decltype(&ggml_free) free = nullptr;
    decltype(&ggml_tensor_overhead) tensor_overhead = nullptr;
    decltype(&ggml_graph_overhead_custom) graph_overhead_custom = nullptr;
    decltype(&ggml_new_graph_custom) new_graph_custom = nullptr;
    decltype(&ggml_new_tensor_2d) new_tensor_2d = nullptr;
    decltype(&ggml_view_3d) view_3d = nullptr;
    decltype(&ggml_flash_attn_ext) flash_attn_ext = nullptr;
    decltype(&ggml_set_rows) set_rows = nullptr;
    decltype(&ggml_build_forward_expand) build_forward_expand = nullptr;
    decltype(&ggml_quantize_chunk) quantize_chunk = nullptr;
    decltype(&ggml_threadpool_params_default) threadpool_params_default = nullptr;
    decltype(&ggml_get_type_traits) get_type_traits = nullptr;
    decltype(&ggml_set_name) set_name = nullptr;

    struct Gguf {
        decltype(&gguf_init_from_file) init = nullptr;
        decltype(&gguf_free) free = nullptr;
        decltype(&gguf_find_key) find_key = nullptr;
        decltype(&gguf_get_kv_type) get_kv_type = nullptr;
        decltype(&gguf_type_name) type_name = nullptr;
        decltype(&gguf_get_arr_type) get_arr_type = nullptr;
        decltype(&gguf_get_arr_n) get_arr_n = nullptr;
        decltype(&gguf_get_arr_data) get_arr_data = nullptr;
        decltype(&gguf_get_val_data) get_val_data = nullptr;
        decltype(&gguf_get_val_str) get_val_str = nullptr;
        decltype(&gguf_get_n_tensors) get_n_tensors = nullptr;
        decltype(&gguf_get_data_offset) get_data_offset = nullptr;
        decltype(&gguf_get_tensor_offset) get_tensor_offset = nullptr;
        decltype(&gguf_get_tensor_size) get_tensor_size = nullptr;
        decltype(&gguf_find_tensor) find_tensor = nullptr;
        decltype(&gguf_get_tensor_type) get_tensor_type = nullptr;
        decltype(&gguf_init_empty) init_empty = nullptr;
        decltype(&gguf_set_val_str) set_val_str = nullptr;
        decltype(&gguf_set_val_u32) set_val_u32 = nullptr;
        decltype(&gguf_add_tensor) add_tensor = nullptr;
        decltype(&gguf_write_to_file) write_to_file = nullptr;
    } gguf;
};

// libggml-cpu.
struct GgmlCpuApi {
    std::string path;
    std::vector<std::string> features;  // x86 or ARM instruction sets that this library was compiled for

    decltype(&ggml_cpu_init) init = nullptr;
    decltype(&ggml_graph_plan) graph_plan = nullptr;
    decltype(&ggml_graph_compute) graph_compute = nullptr;
    decltype(&ggml_threadpool_new) threadpool_new = nullptr;
    decltype(&ggml_threadpool_free) threadpool_free = nullptr;
    decltype(&ggml_threadpool_pause) threadpool_pause = nullptr;
    decltype(&ggml_threadpool_resume) threadpool_resume = nullptr;
};

// dir: where the libraries are; "" is the folder that the build was configured with, then the system's.
// Loaded once and never closed: the first call decides. Error: kUnsupported with what was tried.
Result<const GgmlApi*> ggml_api(const std::string& dir = "");
// The CPU backend beside ggml_api(dir)'s library; of several variants (GGML_CPU_ALL_VARIANTS) the one that ggml would
// take.
Result<const GgmlCpuApi*> ggml_cpu_api(const std::string& dir = "");

}  // namespace tq::tool
