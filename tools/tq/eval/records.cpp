#include "eval/records.h"

#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

namespace tq::tool {
namespace {

using Json = nlohmann::json;

Json chunk_json(const std::string& cache, int index, const std::vector<Divergence>& tokens) {
    Json kld = Json::array(), log_p = Json::array(), log_q = Json::array(), same = Json::array();
    for (const Divergence& t : tokens) {
        kld.push_back(t.kld);
        log_p.push_back(t.log_p);
        log_q.push_back(t.log_q);
        same.push_back(t.same_top ? 1 : 0);
    }
    return {{"chunk", index}, {"cache", cache}, {"kld", kld}, {"log_p", log_p}, {"log_q", log_q}, {"same", same}};
}

std::vector<Divergence> chunk_of(const Json& json) {
    std::vector<Divergence> tokens;
    for (size_t i = 0; i < json.at("kld").size(); ++i) {
        tokens.push_back({json.at("kld").at(i).get<float>(), json.at("log_p").at(i).get<float>(),
                          json.at("log_q").at(i).get<float>(), json.at("same").at(i).get<int>() != 0});
    }
    return tokens;
}

}  // namespace

Result<Records> Records::open(const std::string& file, const std::string& subject) {
    Records records;
    records.file_ = file;
    if (file.empty()) return records;
    if (Status status = records.read(subject); !status.ok()) return status;
    return records;
}

Status Records::read(const std::string& subject) {
    std::ifstream in(file_, std::ios::binary);
    const std::string first = Json{{"tq_eval", 1}, {"subject", subject}}.dump();
    std::string line;
    if (!in || !std::getline(in, line)) return append(first);
    if (line != first) {
        return Status(Error::kInvalidArgument, file_ + ": holds results of another model, text or context, or none (" +
                                                   line.substr(0, 200) + "); name another file");
    }
    size_t whole = line.size() + 1;  // bytes of lines that are complete
    for (int number = 2; std::getline(in, line); ++number) {
        if (in.eof()) break;  // no line end: the last call was cut off while it wrote
        try {
            take(line);
        } catch (const Json::exception&) {
            return Status(Error::kInvalidArgument, file_ + ": line " + std::to_string(number) + " is damaged");
        }
        whole += line.size() + 1;
    }
    in.close();
    std::error_code error;
    if (std::filesystem::file_size(file_, error) > whole && !error) std::filesystem::resize_file(file_, whole, error);
    if (error) return Status(Error::kInvalidArgument, file_ + ": " + error.message());
    return {};
}

void Records::take(const std::string& line) {
    const Json json = Json::parse(line);
    const std::string cache = json.at("cache").get<std::string>();
    if (json.contains("chunk")) {
        chunks_[{cache, json.at("chunk").get<int>()}] = chunk_of(json);
    } else if (json.contains("greedy")) {
        greedy_[{cache, json.at("greedy").get<int>()}] = json.at("length").get<int>();
    } else {
        recall_[{cache, json.at("recall").get<int>()}] = {json.at("tokens").get<int>(), json.at("right").get<int>(),
                                                          json.at("log_p").get<double>()};
    }
}

Status Records::append(const std::string& line) const {
    if (file_.empty()) return {};
    std::ofstream out(file_, std::ios::binary | std::ios::app);
    out << line << '\n';
    out.flush();
    if (!out) return Status(Error::kInvalidArgument, file_ + ": can't be written");
    return {};
}

Status Records::add_chunk(const std::string& cache, int index, std::vector<Divergence> tokens) {
    const std::string line = chunk_json(cache, index, tokens).dump();
    chunks_[{cache, index}] = std::move(tokens);
    return append(line);
}

Status Records::add_greedy(const std::string& cache, int index, int length) {
    greedy_[{cache, index}] = length;
    return append(Json{{"greedy", index}, {"cache", cache}, {"length", length}}.dump());
}

Status Records::add_recall(const std::string& cache, int index, const Recall& r) {
    recall_[{cache, index}] = r;
    return append(
        Json{{"recall", index}, {"cache", cache}, {"tokens", r.n_tokens}, {"right", r.n_right}, {"log_p", r.log_p}}
            .dump());
}

}  // namespace tq::tool
