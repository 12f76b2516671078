#include "gguf_model.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "ggml_api.h"

namespace tq::tool {
namespace {

// Far beyond any model, small enough that no product overflows.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 1 << 16;
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxContext = int64_t{1} << 31;

// read_gguf_model has made sure that it is there.
const GgmlApi& ggml() {
    return *ggml_api().value();
}

struct FreeGguf {
    void operator()(gguf_context* context) const { ggml().gguf.free(context); }
};
using Gguf = std::unique_ptr<gguf_context, FreeGguf>;

// Internal to this file: read_gguf_model turns it into a Status.
struct BadFile : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// ---- values
// -----------------------------------------------------------------------------------------------------------

std::string type_of(const gguf_context* gguf, int64_t id) {
    const gguf_type type = ggml().gguf.get_kv_type(gguf, id);
    if (type != GGUF_TYPE_ARRAY) return ggml().gguf.type_name(type);
    return fmt::format("array of {}", ggml().gguf.type_name(ggml().gguf.get_arr_type(gguf, id)));
}

bool is_integer(gguf_type type) {
    switch (type) {
        case GGUF_TYPE_UINT8:
        case GGUF_TYPE_INT8:
        case GGUF_TYPE_UINT16:
        case GGUF_TYPE_INT16:
        case GGUF_TYPE_UINT32:
        case GGUF_TYPE_INT32:
        case GGUF_TYPE_UINT64:
        case GGUF_TYPE_INT64:
            return true;
        default:
            return false;
    }
}

// Element i of integers in memory; above INT64_MAX -1, which no range allows.
int64_t integer_at(gguf_type type, const void* data, size_t i) {
    switch (type) {
        case GGUF_TYPE_UINT8:
            return static_cast<const uint8_t*>(data)[i];
        case GGUF_TYPE_INT8:
            return static_cast<const int8_t*>(data)[i];
        case GGUF_TYPE_UINT16:
            return static_cast<const uint16_t*>(data)[i];
        case GGUF_TYPE_INT16:
            return static_cast<const int16_t*>(data)[i];
        case GGUF_TYPE_UINT32:
            return static_cast<const uint32_t*>(data)[i];
        case GGUF_TYPE_INT32:
            return static_cast<const int32_t*>(data)[i];
        case GGUF_TYPE_INT64:
            return static_cast<const int64_t*>(data)[i];
        default: {
            const uint64_t value = static_cast<const uint64_t*>(data)[i];
            return value > static_cast<uint64_t>(INT64_MAX) ? -1 : static_cast<int64_t>(value);
        }
    }
}

struct Range {
    int64_t low, high;
};

int64_t checked(const std::string& key, int64_t value, Range range) {
    if (value >= range.low && value <= range.high) return value;
    throw BadFile(fmt::format("{} is {}; allowed: {} to {}", key, value, range.low, range.high));
}

std::optional<int64_t> find_integer(const gguf_context* gguf, const std::string& key, Range range) {
    const int64_t id = ggml().gguf.find_key(gguf, key.c_str());
    if (id < 0) return std::nullopt;
    const gguf_type type = ggml().gguf.get_kv_type(gguf, id);
    if (!is_integer(type)) throw BadFile(fmt::format("{} must be an integer, but is {}", key, type_of(gguf, id)));
    return checked(key, integer_at(type, ggml().gguf.get_val_data(gguf, id), 0), range);
}

int64_t need_integer(const gguf_context* gguf, const std::string& key, Range range) {
    const std::optional<int64_t> value = find_integer(gguf, key, range);
    if (!value) throw BadFile(fmt::format("{} is missing", key));
    return *value;
}

// One integer for all layers, or an array with one for each.
std::optional<std::vector<int64_t>> find_per_layer(const gguf_context* gguf, const std::string& key, int64_t n_layer,
                                                   Range range) {
    const int64_t id = ggml().gguf.find_key(gguf, key.c_str());
    if (id < 0) return std::nullopt;
    if (ggml().gguf.get_kv_type(gguf, id) != GGUF_TYPE_ARRAY) {
        return std::vector<int64_t>(static_cast<size_t>(n_layer), *find_integer(gguf, key, range));
    }
    const gguf_type type = ggml().gguf.get_arr_type(gguf, id);
    if (!is_integer(type)) throw BadFile(fmt::format("{} must hold integers, but is {}", key, type_of(gguf, id)));
    const size_t n = ggml().gguf.get_arr_n(gguf, id);
    if (n != static_cast<size_t>(n_layer))
        throw BadFile(fmt::format("{} has {} elements for {} layers", key, n, n_layer));
    std::vector<int64_t> values;
    for (size_t i = 0; i < n; ++i)
        values.push_back(checked(key, integer_at(type, ggml().gguf.get_arr_data(gguf, id), i), range));
    return values;
}

std::string find_string(const gguf_context* gguf, const char* key) {
    const int64_t id = ggml().gguf.find_key(gguf, key);
    if (id < 0) return "";
    if (ggml().gguf.get_kv_type(gguf, id) != GGUF_TYPE_STRING) {
        throw BadFile(fmt::format("{} must be a string, but is {}", key, type_of(gguf, id)));
    }
    return ggml().gguf.get_val_str(gguf, id);
}

// Text of a file that is going to a terminal.
std::string printable(std::string text) {
    constexpr size_t kLongest = 120;
    if (text.size() > kLongest) text.resize(kLongest);
    std::replace_if(
        text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c >= 0x7f; }, '?');
    return text;
}

std::string architecture_of(const gguf_context* gguf) {
    const std::string name = find_string(gguf, "general.architecture");
    if (name.empty()) throw BadFile("general.architecture is missing: not a model");
    const bool plain = name.size() <= 64 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
                           return std::isalnum(c) || c == '-' || c == '_' || c == '.';
                       });
    if (!plain)
        throw BadFile(fmt::format("general.architecture is '{}', which names no architecture", printable(name)));
    return name;
}

// ---- the model
// --------------------------------------------------------------------------------------------------------

class ModelReader {
  public:
    explicit ModelReader(const gguf_context* gguf) : gguf_(gguf), arch_(architecture_of(gguf)) {}

    GgufModel read() {
        GgufModel model;
        model.architecture = arch_;
        model.name = printable(find_string(gguf_, "general.name"));
        model.context_length = find("context_length", {0, kMaxContext}).value_or(0);
        model.sliding_window = find("attention.sliding_window", {0, kMaxContext}).value_or(0);
        model.layers.resize(static_cast<size_t>(need_integer(gguf_, arch_ + ".block_count", {1, kMaxLayers})));
        read_head_sizes(model);
        fill_layers(model);
        drop_layers(model);
        if (model.n_layer_kv() == 0) throw BadFile("no layer of this model has a KV cache");
        add_notes(model);
        return model;
    }

  private:
    std::optional<int64_t> find(const char* key, Range range) const {
        return find_integer(gguf_, arch_ + "." + key, range);
    }

    void read_head_sizes(GgufModel& model) {
        const int64_t n_layer = static_cast<int64_t>(model.layers.size());
        auto heads = find_per_layer(gguf_, arch_ + ".attention.head_count", n_layer, {0, kMaxHeads});
        heads_kv_ = find_per_layer(gguf_, arch_ + ".attention.head_count_kv", n_layer, {0, kMaxHeads});
        if (!heads && !heads_kv_) throw BadFile(arch_ + ".attention.head_count is missing");
        if (!heads_kv_) heads_kv_ = heads;
        model.key_length = head_size("key_length", heads);
        model.value_length = head_size("value_length", heads);
    }

    // Default: embedding_length / head_count of the first layer, as llama.cpp has it.
    int64_t head_size(const char* key, const std::optional<std::vector<int64_t>>& heads) const {
        const std::string full = std::string("attention.") + key;
        if (auto size = find(full.c_str(), {1, kMaxWidth})) return *size;
        const int64_t n_embd = need_integer(gguf_, arch_ + ".embedding_length", {1, kMaxWidth});
        const int64_t n_head = heads ? heads->front() : 0;
        if (n_head == 0 || n_embd < n_head) {
            throw BadFile(fmt::format("{}.{} is missing, and embedding_length {} / head_count {} does not give it",
                                      arch_, full, n_embd, n_head));
        }
        return n_embd / n_head;
    }

    void fill_layers(GgufModel& model) const {
        // Multi-head latent attention caches one row for keys and values together.
        const bool latent = find("attention.key_length_mla", {0, kMaxWidth}).value_or(0) > 0;
        for (size_t i = 0; i < model.layers.size(); ++i) {
            const int64_t heads = (*heads_kv_)[i];
            model.layers[i] = {heads * model.key_length, latent ? 0 : heads * model.value_length};
        }
        if (latent) model.notes.emplace_back("latent attention (MLA): one row per cell, counted as keys");
    }

    // Layers without a cache of their own: recurrent ones, those that use another layer's, and draft layers at the end.
    void drop_layers(GgufModel& model) const {
        const int64_t n_layer = static_cast<int64_t>(model.layers.size());
        const int64_t interval = find("full_attention_interval", {1, kMaxLayers}).value_or(1);
        const int64_t shared = find("attention.shared_kv_layers", {0, n_layer}).value_or(0);
        const int64_t draft = find("nextn_predict_layers", {0, n_layer}).value_or(0);
        for (int64_t i = 0; i < n_layer; ++i) {
            if ((i + 1) % interval != 0 || i >= n_layer - shared || i >= n_layer - draft)
                model.layers[static_cast<size_t>(i)] = {};
        }
    }

    void add_notes(GgufModel& model) const {
        if (model.sliding_window > 0) {
            model.notes.push_back(fmt::format(
                "sliding window of {} cells: some or all layers need less than what is counted here, the full "
                "context in every layer",
                model.sliding_window));
        }
        for (const char* key : {"attention.key_length_swa", "attention.value_length_swa"}) {
            if (find(key, {1, kMaxWidth}))
                model.notes.push_back(
                    fmt::format("{} is not used: all layers are counted with the full layers' head size", key));
        }
        const int64_t without = static_cast<int64_t>(model.layers.size()) - model.n_layer_kv();
        if (without > 0)
            model.notes.push_back(
                fmt::format("{} of {} layers have no KV cache of their own", without, model.layers.size()));
    }

    const gguf_context* gguf_;
    std::string arch_;
    std::optional<std::vector<int64_t>> heads_kv_;
};

// ---- the file
// ---------------------------------------------------------------------------------------------------------

// ggml reports through its log; the first error is the cause.
class LogCapture {
  public:
    LogCapture() {
        ggml().log_get(&callback_, &user_data_);
        ggml().log_set(append, &text_);
    }
    ~LogCapture() { ggml().log_set(callback_, user_data_); }
    LogCapture(const LogCapture&) = delete;
    LogCapture& operator=(const LogCapture&) = delete;

    std::string first_error() const {
        std::string line = text_.substr(0, text_.find('\n'));
        const size_t function = line.find(": ");  // "gguf_init_from_reader: "
        if (function != std::string::npos) line.erase(0, function + 2);
        return printable(line.empty() ? "not a readable GGUF file" : line);
    }

  private:
    static void append(ggml_log_level level, const char* text, void* target) {
        if (level == GGML_LOG_LEVEL_ERROR) *static_cast<std::string*>(target) += text;
    }

    ggml_log_callback callback_ = nullptr;
    void* user_data_ = nullptr;
    std::string text_;
};

uint64_t regular_file_size(const std::string& file) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(file, error);
    if (!std::filesystem::exists(status)) throw BadFile(error ? error.message() : "no such file");
    if (!std::filesystem::is_regular_file(status)) throw BadFile("not a regular file");
    const uint64_t size = std::filesystem::file_size(file, error);
    if (error) throw BadFile(error.message());
    return size;
}

Gguf open_gguf(const std::string& file) {
    LogCapture log;
    Gguf gguf(ggml().gguf.init(file.c_str(), {/*no_alloc=*/true, /*ctx=*/nullptr}));
    if (!gguf) throw BadFile(log.first_error());
    return gguf;
}

void check_complete(const gguf_context* gguf, uint64_t size) {
    const int64_t n = ggml().gguf.get_n_tensors(gguf);
    if (n == 0) return;
    // ggml has checked that the tensors follow one another and that their sizes add up without overflow.
    const uint64_t data = ggml().gguf.get_data_offset(gguf),
                   end = ggml().gguf.get_tensor_offset(gguf, n - 1) + ggml().gguf.get_tensor_size(gguf, n - 1);
    if (data > size || end > size - data) {
        throw BadFile(fmt::format("truncated: {} bytes, but its tensors end at {}", size, data + end));
    }
}

}  // namespace

int64_t GgufModel::n_layer_kv() const {
    return std::count_if(layers.begin(), layers.end(),
                         [](const KvLayer& l) { return l.n_embd_k > 0 || l.n_embd_v > 0; });
}

Result<GgufModel> read_gguf_model(const std::string& file) {
    if (const auto api = ggml_api(); !api.ok()) return api.status();
    try {
        const uint64_t size = regular_file_size(file);
        const Gguf gguf = open_gguf(file);
        check_complete(gguf.get(), size);
        return ModelReader(gguf.get()).read();
    } catch (const BadFile& error) {
        return Status(Error::kInvalidArgument, file + ": " + error.what());
    } catch (const std::bad_alloc&) {
        return Status(Error::kOutOfMemory, file + ": its metadata do not fit into memory");
    }
}

}  // namespace tq::tool
