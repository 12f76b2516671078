#include "calibrate/energies.h"

#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "turboquant/format/row_format.h"

namespace tq::tool {
namespace {

// One KV head's part of a captured layer.
struct HeadView {
    const CapturedLayer& layer;
    size_t head_kv, n_head_kv, group, n_tokens;

    HeadView(const CapturedLayer& l, size_t head)
        : layer(l),
          head_kv(head),
          n_head_kv(static_cast<size_t>(l.n_embd_k / l.head_dim_k)),
          group(static_cast<size_t>(l.n_head) / n_head_kv),
          n_tokens(l.keys.size() / static_cast<size_t>(l.n_embd_k)) {}

    size_t dim(Side side) const { return static_cast<size_t>(layer.head_dim(side)); }
    const float* row(Side side, size_t token) const {
        return layer.rows(side).data() + token * static_cast<size_t>(layer.n_embd(side)) + head_kv * dim(side);
    }
    const float* query(size_t token, size_t in_group) const {
        return layer.queries.data() +
               (token * static_cast<size_t>(layer.n_head) + head_kv * group + in_group) * dim(Side::kKey);
    }
};

float dot(const float* a, const float* b, size_t n) {
    float sum = 0;
    for (size_t i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

// The softmax of a query over the tokens up to its own.
void attend(const HeadView& head, size_t token, size_t in_group, std::vector<float>& p) {
    const size_t d = head.dim(Side::kKey);
    const float* q = head.query(token, in_group);
    p.resize(token + 1);
    for (size_t j = 0; j <= token; ++j) p[j] = head.layer.scale * dot(q, head.row(Side::kKey, j), d);
    const float top = *std::max_element(p.begin(), p.end());
    float sum = 0;
    for (float& x : p) sum += x = std::exp(x - top);
    for (float& x : p) x /= sum;
}

void add_squares(const float* x, size_t n, double weight, double* sums) {
    for (size_t i = 0; i < n; ++i) sums[i] += weight * double{x[i]} * x[i];
}

struct Weights {
    std::vector<double> keys, values;  // one weight a token
};

// Adds the queries' energies on the way.
Weights weights_of_tokens(const HeadView& head, double* queries) {
    Weights weights{std::vector<double>(head.n_tokens), std::vector<double>(head.n_tokens)};
    std::vector<float> p;
    for (size_t token = 0; token < head.n_tokens; ++token) {
        for (size_t g = 0; g < head.group; ++g) {
            attend(head, token, g, p);
            double all = 0;
            for (size_t j = 0; j <= token; ++j) {
                const double in_logit = double{p[j]} * (1 - double{p[j]});
                weights.keys[j] += in_logit;
                weights.values[j] += double{p[j]} * p[j];
                all += in_logit;
            }
            add_squares(head.query(token, g), head.dim(Side::kKey), all, queries);
        }
    }
    return weights;
}

// About as RowCodec chooses centers: the mean of the block before, of block 0 half of its second key.
std::vector<float> center_of_block(const HeadView& head, size_t block) {
    std::vector<float> mean(head.dim(Side::kKey));
    if (block == 0) {
        for (size_t i = 0; i < mean.size(); ++i) mean[i] = 0.5f * head.row(Side::kKey, 1)[i];
        return mean;
    }
    const size_t begin = block == 1 ? 1 : (block - 1) * kBlockCells, end = block * kBlockCells;
    for (size_t token = begin; token < end; ++token) {
        for (size_t i = 0; i < mean.size(); ++i)
            mean[i] += head.row(Side::kKey, token)[i] / static_cast<float>(end - begin);
    }
    return mean;
}

void add_centered(const HeadView& head, const std::vector<double>& weights, double* sums) {
    std::vector<float> center, difference(head.dim(Side::kKey));
    for (size_t token = 0; token < head.n_tokens; ++token) {
        if (token % kBlockCells == 0) center = center_of_block(head, token / kBlockCells);
        const float share = token < kUncenteredCells ? 0.0f : 1.0f;
        for (size_t i = 0; i < center.size(); ++i) difference[i] = head.row(Side::kKey, token)[i] - share * center[i];
        add_squares(difference.data(), difference.size(), weights[token], sums);
    }
}

}  // namespace

void LayerEnergies::make_room(const CapturedLayer& layer) {
    head_dim_k = layer.head_dim_k;
    head_dim_v = layer.head_dim_v;
    n_head = layer.n_head;
    for (std::vector<double>* sums : {&keys, &queries, &centered_keys})
        sums->resize(static_cast<size_t>(layer.n_embd_k));
    values.resize(static_cast<size_t>(layer.n_embd_v));
}

void LayerEnergies::add_head(const CapturedLayer& layer, size_t head_kv) {
    const HeadView head(layer, head_kv);
    const size_t k = head_kv * head.dim(Side::kKey), v = head_kv * head.dim(Side::kValue);
    const Weights weights = weights_of_tokens(head, queries.data() + k);
    for (size_t token = 0; token < head.n_tokens; ++token) {
        add_squares(head.row(Side::kKey, token), head.dim(Side::kKey), weights.keys[token], keys.data() + k);
        add_squares(head.row(Side::kValue, token), head.dim(Side::kValue), weights.values[token], values.data() + v);
    }
    add_centered(head, weights.keys, centered_keys.data() + k);
}

void add(const Captured& captured, int n_threads, Energies& energies) {
    struct Part {
        const CapturedLayer* layer;
        LayerEnergies* sums;
        size_t head_kv;
    };
    std::vector<Part> parts;
    for (const auto& [index, layer] : captured) {
        energies[index].make_room(layer);
        const auto n_head_kv = static_cast<size_t>(layer.n_embd_k / layer.head_dim_k);
        for (size_t head = 0; head < n_head_kv; ++head) parts.push_back({&layer, &energies[index], head});
    }
    parallel_for(parts.size(), n_threads,
                 [&](size_t i) { parts[i].sums->add_head(*parts[i].layer, parts[i].head_kv); });
}

}  // namespace tq::tool
