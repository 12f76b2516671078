#include "eval/evaluation.h"

#include <algorithm>
#include <chrono>
#include <random>

#include <fmt/format.h>

#include "bench/machine.h"
#include "parallel.h"

namespace tq::tool {
namespace {

int top(const float* logits, int n) {
    return static_cast<int>(std::max_element(logits, logits + n) - logits);
}

// Called before each step that is really made, with the number of those to come.
class Remaining {
  public:
    std::string operator()(int steps) {
        const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
        const int done = done_++;
        if (done == 0) return "";
        const int seconds = static_cast<int>(spent.count() / done * steps);
        return fmt::format(", {}:{:02} left", seconds / 60, seconds % 60);
    }

  private:
    int done_ = 0;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

HostOptions host_options(const EvalOptions& options) {
    HostOptions host;
    host.model = options.model;
    host.plugin = options.plugin;
    host.n_threads = options.n_threads > 0 ? options.n_threads : usable_cores();
    host.calibration = options.calibration;
    return host;
}

Evaluation::Evaluation(Host& host, const EvalOptions& options, std::vector<CacheChoice> caches, Tokens text,
                       Records& records, std::function<void(const std::string&)> progress)
    : host_(host),
      options_(options),
      caches_(std::move(caches)),
      text_(std::move(text)),
      records_(records),
      progress_(std::move(progress)),
      n_chunks_(static_cast<int>(std::min<size_t>(static_cast<size_t>(options.n_chunks),
                                                  text_.size() / static_cast<size_t>(options.n_ctx)))) {}

Status Evaluation::failed(const std::string& cache) const {
    return Status(Error::kUnsupported, cache + ": llama.cpp failed to decode");
}

Status Evaluation::open_sessions() {
    const int n_batch = options_.n_batch;
    Result<Session> f16 = host_.open(CacheChoice::parse("f16").value(), options_.n_ctx, n_batch, n_batch);
    if (!f16.ok()) return f16.status();
    f16_ = std::move(f16.value());
    for (const CacheChoice& cache : caches_) {
        const bool floor = !cache.presets && cache.key_type == GGML_TYPE_F16 && cache.value_type == GGML_TYPE_F16;
        Result<Session> session = host_.open(cache, options_.n_ctx, n_batch, floor ? n_batch / 2 : n_batch);
        if (!session.ok()) return session.status();
        contestants_.push_back({cache, std::move(session.value())});
    }
    return {};
}

template <class Missing>
std::vector<Evaluation::Contestant*> Evaluation::contestants(Missing missing) {
    std::vector<Contestant*> found;
    for (Contestant& c : contestants_) {
        if (missing(c.cache.name)) found.push_back(&c);
    }
    return found;
}

Status Evaluation::run() {
    if (Status status = open_sessions(); !status.ok()) return status;
    for (auto part : {&Evaluation::run_chunks, &Evaluation::run_greedy, &Evaluation::run_recall}) {
        if (Status status = (this->*part)(); !status.ok()) return status;
    }
    return {};
}

// Cuts the text as llama-perplexity does: whole chunks, each beginning as a text does.
Tokens Evaluation::chunk_tokens(int index) const {
    const auto begin = text_.begin() + static_cast<ptrdiff_t>(index) * options_.n_ctx;
    Tokens tokens(begin, begin + options_.n_ctx);
    if (const auto first = host_.begin_of_text()) tokens[0] = *first;
    return tokens;
}

// ---- divergence

Status Evaluation::run_chunks() {
    Remaining remaining;
    for (int index = 0; index < n_chunks_; ++index) {
        const auto missing = contestants([&](const std::string& name) { return !records_.chunk(name, index); });
        if (missing.empty()) continue;
        progress_(fmt::format("chunk {} of {}{}", index + 1, n_chunks_, remaining(n_chunks_ - index)));
        if (Status status = run_chunk(index, missing); !status.ok()) return status;
    }
    return {};
}

Status Evaluation::run_chunk(int index, const std::vector<Contestant*>& missing) {
    const Tokens tokens = chunk_tokens(index);
    std::vector<std::vector<Divergence>> results(missing.size());
    f16_->clear();
    for (Contestant* c : missing) c->session.clear();
    for (int begin = 0; begin < options_.n_ctx; begin += options_.n_batch) {
        const int n = std::min(options_.n_batch, options_.n_ctx - begin);
        if (Status status = compare_batch(begin, n, missing, tokens, results); !status.ok()) return status;
    }
    for (size_t c = 0; c < missing.size(); ++c) {
        if (Status status = records_.add_chunk(missing[c]->cache.name, index, std::move(results[c])); !status.ok())
            return status;
    }
    return {};
}

Status Evaluation::compare_batch(int begin, int n, const std::vector<Contestant*>& missing, const Tokens& chunk,
                                 std::vector<std::vector<Divergence>>& results) {
    // Tokens of the second half, but the last: what follows it is not in the chunk.
    const int first = std::max(options_.n_ctx / 2 - begin, 0), last = std::min(n, options_.n_ctx - 1 - begin);
    if (!f16_->decode(chunk.data() + begin, n, begin, first)) return failed("f16");
    for (size_t c = 0; c < missing.size(); ++c) {
        Session& session = missing[c]->session;
        if (!session.decode(chunk.data() + begin, n, begin, first)) return failed(missing[c]->cache.name);
        if (first >= last) continue;
        std::vector<Divergence> found(static_cast<size_t>(last - first));
        std::vector<std::pair<const float*, const float*>> logits;  // libllama's getters are for one thread
        for (int i = first; i < last; ++i) logits.emplace_back(f16_->logits(i), session.logits(i));
        parallel_for(found.size(), options_.n_threads, [&](size_t i) {
            const auto [p, q] = logits[i];
            found[i] = diverge(p, q, session.n_vocab(), chunk[static_cast<size_t>(begin + first + 1) + i]);
        });
        results[c].insert(results[c].end(), found.begin(), found.end());
    }
    return {};
}

// ---- greedy continuations

const float* Evaluation::read(Session& session, const Tokens& tokens) {
    session.clear();
    const int n = static_cast<int>(tokens.size());
    int last = 0;
    for (int begin = 0; begin < n; begin += last) {
        last = std::min(options_.n_batch, n - begin);
        const int output = begin + last == n ? last - 1 : last;
        if (!session.decode(tokens.data() + begin, last, begin, output)) return nullptr;
    }
    return session.logits(last - 1);
}

Result<Tokens> Evaluation::generate(Session& session, const Tokens& prompt) {
    const float* logits = read(session, prompt);
    Tokens tokens;
    while (logits) {
        tokens.push_back(top(logits, session.n_vocab()));
        if (tokens.size() == kGreedyTokens) return tokens;
        const int position = static_cast<int>(prompt.size() + tokens.size()) - 1;
        logits = session.decode(&tokens.back(), 1, position, 0) ? session.logits(0) : nullptr;
    }
    return failed("greedy continuation");
}

Status Evaluation::run_greedy() {
    const int n = std::min(options_.n_greedy, static_cast<int>(text_.size()) / options_.n_ctx);
    Remaining remaining;
    for (int index = 0; index < n; ++index) {
        const auto missing = contestants([&](const std::string& name) { return !records_.greedy(name, index); });
        if (missing.empty()) continue;
        progress_(fmt::format("greedy continuation {} of {}{}", index + 1, n, remaining(n - index)));
        Tokens prompt = chunk_tokens(index);
        prompt.resize(prompt.size() - kGreedyTokens);
        const Result<Tokens> expected = generate(*f16_, prompt);
        if (!expected.ok()) return expected.status();
        for (Contestant* c : missing) {
            const Result<Tokens> tokens = generate(c->session, prompt);
            if (!tokens.ok()) return tokens.status();
            const auto differs = std::mismatch(tokens->begin(), tokens->end(), expected->begin()).first;
            const int length = static_cast<int>(differs - tokens->begin());
            if (Status status = records_.add_greedy(c->cache.name, index, length); !status.ok()) return status;
        }
    }
    return {};
}

// ---- recall

// Text with a passage of random tokens of it somewhere, and at the end the beginning of that passage, then the rest.
Tokens Evaluation::recall_context(int index) const {
    std::mt19937 random(static_cast<unsigned>(index));
    const auto pick = [&](size_t n) { return static_cast<size_t>(random() % n); };
    Tokens passage;
    for (int i = 0; i < kPassageTokens; ++i) passage.push_back(text_[pick(text_.size())]);
    Tokens context = chunk_tokens(index % std::max(1, static_cast<int>(text_.size()) / options_.n_ctx));
    context.resize(context.size() - 2 * kPassageTokens);
    const size_t at = 1 + pick(context.size() / 2);  // far from the end
    context.insert(context.begin() + static_cast<ptrdiff_t>(at), passage.begin(), passage.end());
    context.insert(context.end(), passage.begin(), passage.end());
    return context;
}

Result<Recall> Evaluation::recall(Session& session, const Tokens& context) {
    const int asked = kPassageTokens - kPassageCue;
    const Tokens given(context.begin(), context.end() - asked);
    const float* logits = read(session, given);
    Recall result;
    for (size_t i = given.size(); logits && i < context.size(); ++i) {
        const Divergence d = diverge(logits, logits, session.n_vocab(), context[i]);
        ++result.n_tokens;
        result.n_right += top(logits, session.n_vocab()) == context[i];
        result.log_p += d.log_p;
        if (i + 1 == context.size()) return result;
        logits = session.decode(&context[i], 1, static_cast<int>(i), 0) ? session.logits(0) : nullptr;
    }
    return failed("recall");
}

Status Evaluation::run_recall() {
    Remaining remaining;
    for (int index = 0; index < options_.n_recall; ++index) {
        const auto missing = contestants([&](const std::string& name) { return !records_.recall(name, index); });
        if (missing.empty()) continue;
        progress_(fmt::format("recall {} of {}{}", index + 1, options_.n_recall, remaining(options_.n_recall - index)));
        const Tokens context = recall_context(index);
        for (Contestant* c : missing) {
            const Result<Recall> result = recall(c->session, context);
            if (!result.ok()) return result.status();
            if (Status status = records_.add_recall(c->cache.name, index, result.value()); !status.ok()) return status;
        }
    }
    return {};
}

}  // namespace tq::tool
