#include "generation.h"

#include <algorithm>
#include <cmath>

#include <ggml-backend.h>

namespace tq::e2e {
namespace {

constexpr const char* kText =
    "The lighthouse keeper had lived on the rock for thirty years before the harbour was built. Every evening he "
    "climbed the "
    "hundred and twelve steps, trimmed the wick, and wrote a line in his log: the wind, the sea, the ships that went "
    "by. In "
    "the winter of 1887 a schooner called the Marigold struck the reef during a gale, and he rowed out alone to bring "
    "back "
    "her crew of nine. The captain, a quiet man from Bergen named Anders Holm, stayed on the island until spring. They "
    "played "
    "chess, mended nets, and argued about the stars. When Holm left he gave the keeper a brass sextant and a promise. "
    "Twelve years later a letter arrived. It described a city on the other side of the world, where trains ran below "
    "the "
    "streets and lamps burned without oil. The keeper read it twice, folded it, and placed it inside the log book. He "
    "did not "
    "answer at once. There was a storm coming, and the glass was falling fast. ";
constexpr const char* kMore =
    "A short list of what was found in the tower afterwards: one sextant, two chess sets, four barrels of oil, 31 log "
    "books, a "
    "letter in a foreign hand, and a map of the night sky drawn on the back of a chart. The historian who catalogued "
    "them "
    "noticed that the log books never missed a day. Water boils at a lower temperature on a mountain because the air "
    "presses "
    "less on it; the same is true of a kettle in a falling barometer, he had written once, and I have measured it. The "
    "museum "
    "in the harbour shows the sextant today. Visitors ask most often about the map, since it has a star that nobody "
    "else has "
    "seen. Astronomers believe that it was a comet. The children of the village have another explanation, and they "
    "tell it in "
    "the evening, when the beam of the new light, which turns by itself, crosses the water and the reef and the empty "
    "rock. "
    "First you take a boat. Second you wait for the tide. Third, and this is the part that the grown people forget, "
    "you count "
    "the steps aloud: one, two, three, four, five, and so on, until the sea answers.";

double log_sum_exp(const Logits& logits) {
    const double max = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (float x : logits) sum += std::exp(x - max);
    return max + std::log(sum);
}

struct Batch {
    explicit Batch(size_t n) : batch(llama_batch_init(static_cast<int32_t>(n), 0, 1)) {}
    ~Batch() { llama_batch_free(batch); }
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;

    void add(llama_token token, llama_pos position, llama_seq_id seq, bool output) {
        const int i = batch.n_tokens++;
        batch.token[i] = token;
        batch.pos[i] = position;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = seq;
        batch.logits[i] = output;
    }
    llama_batch batch;
};

}  // namespace

llama_model_ptr load_model(const std::string& path, Cache cache) {
    ggml_backend_load_all();
    ggml_backend_dev_t devices[] = {nullptr, nullptr};
    if (cache == Cache::kTurboQuant) {
        devices[0] = ggml_backend_dev_by_name("TurboQuant");
        if (!devices[0]) return nullptr;
    }
    llama_model_params params = llama_model_default_params();
    params.devices = devices;
    params.n_gpu_layers = 99;
    return llama_model_ptr(llama_model_load_from_file(path.c_str(), params));
}

Tokens prompt(const llama_model* model, size_t n, size_t from) {
    const std::string text = std::string(kText) + kMore;
    Tokens tokens(text.size());
    const int count = llama_tokenize(llama_model_get_vocab(model), text.c_str(), static_cast<int>(text.size()),
                                     tokens.data(), static_cast<int>(tokens.size()), true, false);
    tokens.resize(static_cast<size_t>(std::max(count, 0)));
    Tokens part;
    for (size_t i = 0; i < n; ++i) part.push_back(tokens.at((from + i) % tokens.size()));
    return part;
}

Session::Session(llama_model* model, const ContextOptions& options)
    : options_(options), n_vocab_(llama_vocab_n_tokens(llama_model_get_vocab(model))) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = options.n_ctx;
    params.n_batch = params.n_ubatch = options.n_batch;
    params.n_seq_max = options.n_seq_max;
    params.kv_unified = options.unified;
    params.n_threads = params.n_threads_batch = options.n_threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.swa_full = false;
    context_.reset(llama_init_from_model(model, params));
}

Logits Session::logits_at(int index) {
    const float* logits = llama_get_logits_ith(context_.get(), index);
    return logits ? Logits(logits, logits + n_vocab_) : Logits();
}

Logits Session::decode(const Tokens& tokens, llama_pos position, llama_seq_id seq) {
    for (size_t begin = 0; begin < tokens.size(); begin += options_.n_batch) {
        const size_t end = std::min(tokens.size(), begin + options_.n_batch);
        Batch batch(end - begin);
        for (size_t i = begin; i < end; ++i) {
            batch.add(tokens[i], position + static_cast<llama_pos>(i), seq, i + 1 == tokens.size());
        }
        if (llama_decode(context_.get(), batch.batch) != 0) return {};
    }
    return logits_at(-1);
}

std::vector<Logits> Session::decode_all(const Tokens& tokens, llama_pos position, llama_seq_id seq) {
    std::vector<Logits> all;
    for (size_t begin = 0; begin < tokens.size(); begin += options_.n_batch) {
        const size_t end = std::min(tokens.size(), begin + options_.n_batch);
        Batch batch(end - begin);
        for (size_t i = begin; i < end; ++i) batch.add(tokens[i], position + static_cast<llama_pos>(i), seq, true);
        if (llama_decode(context_.get(), batch.batch) != 0) return {};
        for (size_t i = begin; i < end; ++i) all.push_back(logits_at(static_cast<int>(i - begin)));
    }
    return all;
}

std::vector<Logits> Session::decode_together(const Tokens& tokens, const std::vector<llama_pos>& positions) {
    Batch batch(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) batch.add(tokens[i], positions[i], static_cast<llama_seq_id>(i), true);
    if (llama_decode(context_.get(), batch.batch) != 0) return {};
    std::vector<Logits> all;
    for (size_t i = 0; i < tokens.size(); ++i) all.push_back(logits_at(static_cast<int>(i)));
    return all;
}

Tokens Session::generate(Logits logits, llama_pos position, size_t n, llama_seq_id seq) {
    Tokens tokens;
    while (tokens.size() < n && !logits.empty()) {
        tokens.push_back(argmax(logits));
        if (tokens.size() < n) logits = decode({tokens.back()}, position++, seq);
    }
    return tokens;
}

std::vector<uint8_t> Session::save(llama_seq_id seq) {
    std::vector<uint8_t> state(llama_state_seq_get_size(context_.get(), seq));
    state.resize(llama_state_seq_get_data(context_.get(), state.data(), state.size(), seq));
    return state;
}

bool Session::restore(const std::vector<uint8_t>& state, llama_seq_id seq) {
    return llama_state_seq_set_data(context_.get(), state.data(), state.size(), seq) == state.size();
}

llama_token argmax(const Logits& logits) {
    return static_cast<llama_token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double kl_divergence(const Logits& p, const Logits& q) {
    if (p.empty() || p.size() != q.size()) return NAN;
    const double sum_p = log_sum_exp(p), sum_q = log_sum_exp(q);
    double divergence = 0;
    for (size_t i = 0; i < p.size(); ++i) divergence += std::exp(p[i] - sum_p) * ((p[i] - sum_p) - (q[i] - sum_q));
    return divergence;
}

double mean_kl_divergence(const std::vector<Logits>& p, const std::vector<Logits>& q) {
    if (p.empty() || p.size() != q.size()) return NAN;
    double sum = 0;
    for (size_t i = 0; i < p.size(); ++i) sum += kl_divergence(p[i], q[i]);
    return sum / static_cast<double>(p.size());
}

}  // namespace tq::e2e
