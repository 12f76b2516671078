// Results as they come in, in memory and, if asked for, in a file that a later call continues.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "eval/divergence.h"
#include "turboquant/base/status.h"

namespace tq::tool {

// One hidden passage.
struct Recall {
    int n_tokens = 0, n_right = 0;
    double log_p = 0;  // log-probabilities of its tokens, summed
};

class Records {
  public:
    // file: "" keeps nothing. `subject` says what results are about (model, text, context); a file about something else
    // is refused. Errors: kInvalidArgument naming the file and what is wrong. A last line that was cut short is
    // dropped.
    static Result<Records> open(const std::string& file, const std::string& subject);

    const std::vector<Divergence>* chunk(const std::string& cache, int index) const {
        return find(chunks_, cache, index);
    }
    const int* greedy(const std::string& cache, int index) const { return find(greedy_, cache, index); }
    const Recall* recall(const std::string& cache, int index) const { return find(recall_, cache, index); }

    // Error: kInvalidArgument if the file can't be written.
    Status add_chunk(const std::string& cache, int index, std::vector<Divergence> tokens);
    Status add_greedy(const std::string& cache, int index, int length);
    Status add_recall(const std::string& cache, int index, const Recall& recall);

  private:
    using Key = std::pair<std::string, int>;
    template <class Value>
    static const Value* find(const std::map<Key, Value>& map, const std::string& cache, int index) {
        const auto at = map.find({cache, index});
        return at == map.end() ? nullptr : &at->second;
    }
    Status read(const std::string& subject);
    void take(const std::string& line);  // throws nlohmann::json::exception
    Status append(const std::string& line) const;

    std::string file_;
    std::map<Key, std::vector<Divergence>> chunks_;
    std::map<Key, int> greedy_;
    std::map<Key, Recall> recall_;
};

}  // namespace tq::tool
