#include "eval/host.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "child_process.h"
#include "cpu_device.h"

namespace tq::tool {
namespace {

// llama.cpp talks a lot: the last warnings and errors are kept for our own messages.
constexpr size_t kKeptLines = 4;
constexpr int kProbeContext = 256;
std::mutex g_log_mutex;
std::vector<std::string> g_log;

void keep_problems(ggml_log_level level, const char* text, void*) {
    if (level != GGML_LOG_LEVEL_WARN && level != GGML_LOG_LEVEL_ERROR) return;
    std::lock_guard lock(g_log_mutex);
    g_log.emplace_back(text);
    if (g_log.size() > kKeptLines) g_log.erase(g_log.begin());
}

Status failure(const std::string& what) {
    std::lock_guard lock(g_log_mutex);
    std::string message = what;
    for (const std::string& line : g_log) message += "\n  " + line.substr(0, line.find_last_not_of('\n') + 1);
    return Status(Error::kUnsupported, message);
}

void forget_problems() {
    std::lock_guard lock(g_log_mutex);
    g_log.clear();
}

// llama.cpp does without flash attention for a few models (Grok), whatever it is asked for, and says so in a line only.
bool flash_attention_was_refused() {
    std::lock_guard lock(g_log_mutex);
    return std::any_of(g_log.begin(), g_log.end(), [](const std::string& line) {
        return line.find("flash_attn") != std::string::npos && line.find("forcing off") != std::string::npos;
    });
}

// GGML_BACKEND_PATH as it was at first: cpu_device() takes it out of the environment.
const std::string& default_plugin() {
    static const std::string path = [] {
        const char* given = std::getenv("GGML_BACKEND_PATH");
        return std::string(given && *given ? given : TQ_PLUGIN_FILE);
    }();
    return path;
}

}  // namespace

Session::Session(llama_context* context, int n_vocab) : context_(context, llama_free), n_vocab_(n_vocab) {}

void Session::clear() {
    llama_memory_clear(llama_get_memory(context_.get()), true);
}

bool Session::decode(const llama_token* tokens, int n, int position, int first_output) {
    llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (int i = 0; i < n; ++i) {
        batch.token[i] = tokens[i];
        batch.pos[i] = position + i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = i >= first_output;
    }
    const bool ok = llama_decode(context_.get(), batch) == 0;
    llama_batch_free(batch);
    return ok;
}

// Reads the model's metadata in another process first; errors that it survives are left to the real thing.
Status Host::check_survival(const HostOptions& options) {
    const auto end = in_child_process([&] {
        HostOptions dry = options;
        dry.dry = true;
        Result<Host> host = create(dry);
        if (host.ok()) (void)host->open(CacheChoice(), kProbeContext, kProbeContext, kProbeContext);
        return 0;
    });
    if (!end) return Status(Error::kUnsupported, "no process could be started");
    if (end->signal.empty()) return {};
    return Status(Error::kInvalidArgument,
                  options.model + ": llama.cpp died of " + end->signal + " while it read this file");
}

Result<Host> Host::create(const HostOptions& options) {
    Host host(options);
    llama_log_set(keep_problems, nullptr);
    if (host.options_.plugin.empty()) host.options_.plugin = default_plugin();
    if (const auto cpu = cpu_device(); !cpu.ok()) return cpu.status();
    llama_backend_init();
    Result<Model> model = host.load_model(nullptr);
    if (!model.ok()) return model.status();
    host.cpu_model_ = std::move(model.value());
    return host;
}

Result<Host::Model> Host::load_model(ggml_backend_dev_t device) {
    ggml_backend_dev_t devices[] = {device, nullptr};
    llama_model_params params = llama_model_default_params();
    params.devices = devices;
    params.n_gpu_layers = device ? 999 : 0;
    if (options_.dry) {
        params.no_alloc = true;
        params.load_mode = LLAMA_LOAD_MODE_NONE;  // no_alloc wants it
    }
    Model model(llama_model_load_from_file(options_.model.c_str(), params), llama_model_free);
    if (!model) return failure(options_.model + ": llama.cpp can't load it");
    return model;
}

Status Host::load_plugin() {
    const std::string& path = options_.plugin;
    plugin_ = ggml_backend_reg_by_name("TurboQuant");  // another host may have loaded it
    if (!plugin_) plugin_ = ggml_backend_load(path.c_str());
    if (!plugin_) return failure(path + ": llama.cpp can't load it as a backend");
    Result<Model> model = load_model(ggml_backend_reg_dev_get(plugin_, 0));
    if (!model.ok()) return model.status();
    packed_model_ = std::move(model.value());
    return {};
}

Result<Session> Host::open(const CacheChoice& cache, int n_ctx, int n_batch, int n_ubatch, Watch watch) {
    if (cache.presets && !plugin_) {
        if (Status status = load_plugin(); !status.ok()) return status;
    }
    if (cache.presets) {
        using Configure = const char* (*)(const char* presets, const char* calibration);
        const auto configure =
            reinterpret_cast<Configure>(ggml_backend_reg_get_proc_address(plugin_, "turboquant_configure_cache"));
        if (!configure) return Status(Error::kUnsupported, "this plugin is of another version than tq");
        const std::string presets = cache.presets->name();
        if (const char* problem = configure(presets.c_str(), cache.calibrated ? options_.calibration.c_str() : nullptr))
            return Status(Error::kInvalidArgument, problem);
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(n_ctx);
    params.n_batch = static_cast<uint32_t>(n_batch);
    params.n_ubatch = static_cast<uint32_t>(n_ubatch);
    params.n_seq_max = 1;
    params.n_threads = params.n_threads_batch = options_.n_threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = cache.key_type;
    params.type_v = cache.value_type;
    params.swa_full = false;  // llama.cpp's tools have it so
    params.no_perf = true;
    params.cb_eval = watch.callback;
    params.cb_eval_user_data = watch.data;
    llama_model* model = cache.presets ? packed_model_.get() : cpu_model_.get();
    forget_problems();
    llama_context* context = llama_init_from_model(model, params);
    if (!context) return failure(cache.name + ": llama.cpp can't make a context with this KV cache");
    Session session(context, n_vocab());
    if (cache.presets && flash_attention_was_refused()) {
        return failure(cache.name + ": needs flash attention, which llama.cpp does not use for this model");
    }
    return session;
}

std::string Host::metadata(const char* key) const {
    std::string value(256, '\0');
    const int n = llama_model_meta_val_str(model(), key, value.data(), value.size());
    value.resize(n < 0 ? 0 : std::min(value.size() - 1, static_cast<size_t>(n)));
    return value;
}

Tokens Host::tokenize(const std::string& text) const {
    Tokens tokens(text.size() + 2);
    const int n = llama_tokenize(vocab(), text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                                 static_cast<int32_t>(tokens.size()), /*add_special=*/true, /*parse_special=*/false);
    tokens.resize(static_cast<size_t>(n < 0 ? 0 : n));
    return tokens;
}

std::optional<llama_token> Host::begin_of_text() const {
    if (!llama_vocab_get_add_bos(vocab())) return std::nullopt;
    return llama_vocab_bos(vocab());
}

}  // namespace tq::tool
