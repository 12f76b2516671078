// libllama, found at run time beside the ggml that tq uses.
#pragma once

#include <string>

#include <ggml-backend.h>
#include <llama.h>

#include "turboquant/base/status.h"

namespace tq::tool {

// Members are named as in llama.cpp, without the prefix llama_.
struct LlamaApi {
    std::string path;

    decltype(&llama_backend_init) backend_init = nullptr;
    decltype(&llama_log_set) log_set = nullptr;
    decltype(&llama_model_default_params) model_default_params = nullptr;
    decltype(&llama_model_load_from_file) model_load_from_file = nullptr;
    decltype(&llama_model_free) model_free = nullptr;
    decltype(&llama_model_get_vocab) model_get_vocab = nullptr;
    decltype(&llama_vocab_n_tokens) vocab_n_tokens = nullptr;
    decltype(&llama_vocab_bos) vocab_bos = nullptr;
    decltype(&llama_vocab_get_add_bos) vocab_get_add_bos = nullptr;
    decltype(&llama_tokenize) tokenize = nullptr;
    decltype(&llama_context_default_params) context_default_params = nullptr;
    decltype(&llama_init_from_model) init_from_model = nullptr;
    decltype(&llama_free) free = nullptr;
    decltype(&llama_get_memory) get_memory = nullptr;
    decltype(&llama_memory_clear) memory_clear = nullptr;
    decltype(&llama_batch_init) batch_init = nullptr;
    decltype(&llama_batch_free) batch_free = nullptr;
    decltype(&llama_decode) decode = nullptr;
    decltype(&llama_get_logits_ith) get_logits_ith = nullptr;

    decltype(&ggml_backend_load) backend_load = nullptr;
    decltype(&ggml_backend_load_all_from_path) backend_load_all_from_path = nullptr;
    decltype(&ggml_backend_reg_dev_get) backend_reg_dev_get = nullptr;
    decltype(&ggml_backend_reg_get_proc_address) backend_reg_get_proc_address = nullptr;
    decltype(&ggml_backend_dev_by_type) backend_dev_by_type = nullptr;
};

// dir: as of ggml_api. Loaded once. Error: kUnsupported with what was tried.
Result<const LlamaApi*> llama_api(const std::string& dir = "");

}  // namespace tq::tool
