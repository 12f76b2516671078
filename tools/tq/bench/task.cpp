#include "bench/task.h"

#include <charconv>
#include <cmath>
#include <random>

#include <fmt/format.h>

#include "turboquant/attention/plan.h"

namespace tq::tool {
namespace {

constexpr uint16_t kHalfZero = 0x0000, kHalfMinusInfinity = 0xfc00;
constexpr int kMaxHeads = 1024;

std::vector<float> gaussian(size_t n, uint32_t seed) {
    std::mt19937 bits(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(n);
    for (float& value : values) value = normal(bits);
    return values;
}

std::vector<int> numbers_of(const std::string& text) {
    std::vector<int> numbers;
    const char *at = text.data(), *end = at + text.size();
    while (true) {
        int number = 0;
        const auto [rest, error] = std::from_chars(at, end, number);
        if (error != std::errc() || number <= 0) return {};
        numbers.push_back(number);
        if (rest == end) return numbers;
        if (*rest != '/') return {};
        at = rest + 1;
    }
}

}  // namespace

std::string HeadShape::name() const {
    if (head_dim_k == head_dim_v) return fmt::format("{}/{}/{}", n_head, n_head_kv, head_dim_k);
    return fmt::format("{}/{}/{}/{}", n_head, n_head_kv, head_dim_k, head_dim_v);
}

Result<HeadShape> parse_shape(const std::string& text) {
    const std::vector<int> n = numbers_of(text);
    if (n.size() != 3 && n.size() != 4) {
        return Status(Error::kInvalidArgument,
                      fmt::format("'{}' is not heads/KV heads/head_dim, as in 32/8/128", text));
    }
    const HeadShape shape{n[0], n[1], n[2], n.back()};
    AttentionShape attention;
    attention.n_head = shape.n_head;
    attention.n_head_kv = shape.n_head_kv;
    attention.head_dim_k = shape.head_dim_k;
    attention.head_dim_v = shape.head_dim_v;
    std::string reason = unsupported_reason(attention);
    if (reason.empty() && shape.n_head > kMaxHeads)
        reason = fmt::format("n_head {} is more than {}", shape.n_head, kMaxHeads);
    if (!reason.empty()) return Status(Error::kInvalidArgument, fmt::format("'{}': {}", text, reason));
    return shape;
}

float Task::scale() const {
    return 1.0F / std::sqrt(static_cast<float>(shape.head_dim_k));
}

AttentionShape Task::attention_shape(int n_threads) const {
    AttentionShape s;
    s.head_dim_k = shape.head_dim_k;
    s.head_dim_v = shape.head_dim_v;
    s.n_head = shape.n_head;
    s.n_head_kv = shape.n_head_kv;
    s.n_tokens = batch;
    s.n_kv = depth;
    s.scale = scale();
    s.n_threads = n_threads;
    return s;
}

Task make_task(const HeadShape& shape, int64_t depth, int64_t batch) {
    Task task;
    task.shape = shape;
    task.depth = depth;
    task.batch = batch;
    task.q = gaussian(static_cast<size_t>(batch * shape.n_head * shape.head_dim_k), 1);
    task.k = gaussian(static_cast<size_t>(kPoolRows * shape.n_embd_k()), 2);
    task.v = gaussian(static_cast<size_t>(kPoolRows * shape.n_embd_v()), 3);
    task.mask.resize(static_cast<size_t>(depth * batch));
    for (int64_t token = 0; token < batch; ++token) {
        for (int64_t cell = 0; cell < depth; ++cell) {
            task.mask[static_cast<size_t>(token * depth + cell)] =
                cell <= depth - batch + token ? kHalfZero : kHalfMinusInfinity;
        }
    }
    return task;
}

}  // namespace tq::tool
