#include "eval/llama_api.h"

#include <filesystem>

#include "ggml_api.h"
#include "shared_library.h"

namespace tq::tool {
namespace {

void bind_llama(Binder& bind, LlamaApi& api) {
    bind("llama_backend_init", api.backend_init);
    bind("llama_log_set", api.log_set);
    bind("llama_model_default_params", api.model_default_params);
    bind("llama_model_load_from_file", api.model_load_from_file);
    bind("llama_model_free", api.model_free);
    bind("llama_model_get_vocab", api.model_get_vocab);
    bind("llama_vocab_n_tokens", api.vocab_n_tokens);
    bind("llama_vocab_bos", api.vocab_bos);
    bind("llama_vocab_get_add_bos", api.vocab_get_add_bos);
    bind("llama_tokenize", api.tokenize);
    bind("llama_context_default_params", api.context_default_params);
    bind("llama_init_from_model", api.init_from_model);
    bind("llama_free", api.free);
    bind("llama_get_memory", api.get_memory);
    bind("llama_memory_clear", api.memory_clear);
    bind("llama_batch_init", api.batch_init);
    bind("llama_batch_free", api.batch_free);
    bind("llama_decode", api.decode);
    bind("llama_get_logits_ith", api.get_logits_ith);
}

void bind_backends(Binder& bind, LlamaApi& api) {
    bind("ggml_backend_load", api.backend_load);
    bind("ggml_backend_load_all_from_path", api.backend_load_all_from_path);
    bind("ggml_backend_reg_dev_get", api.backend_reg_dev_get);
    bind("ggml_backend_reg_get_proc_address", api.backend_reg_get_proc_address);
    bind("ggml_backend_dev_by_type", api.backend_dev_by_type);
}

Result<LlamaApi> load(const std::string& dir) {
    const Result<const GgmlApi*> base = ggml_api(dir);
    if (!base.ok()) return base.status();
    // Beside libggml-base and nowhere else: they must be of one build.
    const std::filesystem::path folder = std::filesystem::path(base.value()->base_path).parent_path();
    const SharedLibrary library = open_first({folder / "libllama.so", folder / "libllama.so.0"});
    if (!library.handle) {
        return Status(Error::kUnsupported,
                      "no usable libllama.so in " + folder.string() +
                          (library.error.empty() ? " (scripts/demo builds it, or name a llama.cpp with --llama)"
                                                 : " (" + library.error + ")"));
    }
    LlamaApi api;
    Binder bind(library.handle);
    bind_llama(bind, api);
    bind_backends(bind, api);  // libggml comes with libllama
    if (!bind.missing().empty()) {
        return Status(Error::kUnsupported, "the libllama.so in " + folder.string() + " has no " + bind.missing());
    }
    api.path = path_of(reinterpret_cast<const void*>(api.backend_init));
    return api;
}

}  // namespace

Result<const LlamaApi*> llama_api(const std::string& dir) {
    static const Result<LlamaApi> loaded = load(dir);
    if (!loaded.ok()) return loaded.status();
    return &loaded.value();
}

}  // namespace tq::tool
