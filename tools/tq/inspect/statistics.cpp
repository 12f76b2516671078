#include "inspect/statistics.h"

#include <algorithm>
#include <cmath>

#include "turboquant/cpu/codec/row_codec.h"

namespace tq::tool {
namespace {

// Second moments of one head's vectors, d * d, row by row, and their mean.
struct Moments {
    std::vector<double> second, mean;
    double energy = 0;  // mean squared norm
};

// vector(i): the i-th of n vectors of d floats.
template <class Vector>
Moments moments(int64_t n, int d, Vector vector) {
    Moments m;
    m.second.resize(static_cast<size_t>(d) * d);
    m.mean.resize(static_cast<size_t>(d));
    for (int64_t i = 0; i < n; ++i) {
        const float* x = vector(i);
        for (int a = 0; a < d; ++a) {
            m.mean[a] += x[a] / static_cast<double>(n);
            for (int b = 0; b < d; ++b)
                m.second[static_cast<size_t>(a) * d + b] += double{x[a]} * x[b] / static_cast<double>(n);
        }
    }
    for (int a = 0; a < d; ++a) m.energy += m.second[static_cast<size_t>(a) * d + a];
    return m;
}

double squared(const std::vector<double>& values) {
    double sum = 0;
    for (double v : values) sum += v * v;
    return sum;
}

// Returns the moments of the queries that meet a KV head.
Moments query_moments(const CapturedLayer& layer, int head_kv) {
    const int d = layer.head_dim_k, n_head_kv = static_cast<int>(layer.n_embd_k / d), group = layer.n_head / n_head_kv;
    const int64_t n_tokens = static_cast<int64_t>(layer.queries.size()) / (int64_t{layer.n_head} * d);
    return moments(n_tokens * group, d, [&](int64_t i) {
        return layer.queries.data() + (i / group * layer.n_head + head_kv * group + i % group) * d;
    });
}

}  // namespace

RowStatistics row_statistics(const CapturedLayer& layer, Side side) {
    const int d = layer.head_dim(side);
    const int64_t n_embd = layer.n_embd(side), n_tokens = static_cast<int64_t>(layer.rows(side).size()) / n_embd;
    const int n_head = static_cast<int>(n_embd / d);
    RowStatistics s;
    for (int head = 0; head < n_head; ++head) {
        const Moments m =
            moments(n_tokens, d, [&](int64_t i) { return layer.rows(side).data() + i * n_embd + head * d; });
        double largest = 0;
        for (int a = 0; a < d; ++a) largest = std::max(largest, m.second[static_cast<size_t>(a) * d + a]);
        s.rms += std::sqrt(m.energy / d) / n_head;
        s.mean_share += squared(m.mean) / m.energy / n_head;
        s.largest_channel += std::sqrt(largest / (m.energy / d)) / n_head;
        s.dimensions += m.energy * m.energy / squared(m.second) / n_head;
    }
    return s;
}

Result<CodecDistortion> codec_distortion(const CapturedLayer& layer, Side side, const Preset& preset) {
    const int d = layer.head_dim(side);
    const int64_t n_embd = layer.n_embd(side), n_tokens = static_cast<int64_t>(layer.rows(side).size()) / n_embd;
    const Result<RowFormat> format = RowFormat::create(preset, side, n_embd);
    if (!format.ok()) return format.status();
    const Result<RowCodec> codec = RowCodec::create(format.value(), d, available_isas().back());
    if (!codec.ok()) return codec.status();
    const size_t block_bytes = format->block_bytes();
    std::vector<uint8_t> packed(static_cast<size_t>(blocks_of_cells(n_tokens)) * block_bytes);
    const Blocks blocks{packed.data(), block_bytes};
    std::vector<float> errors = layer.rows(side);
    std::vector<float> decoded(static_cast<size_t>(n_embd));
    double error = 0, energy = 0;
    for (int64_t token = 0; token < n_tokens; ++token) {
        float* row = errors.data() + token * n_embd;
        codec->encode(row, blocks, token);
        codec->decode(blocks, token, decoded.data());
        for (int64_t i = 0; i < n_embd; ++i) {
            energy += double{row[i]} * row[i];
            row[i] -= decoded[static_cast<size_t>(i)];
            error += double{row[i]} * row[i];
        }
    }
    CodecDistortion result{energy > 0 ? error / energy : 0, 0};
    if (side == Side::kValue || layer.queries.empty()) return result;
    const int n_head = static_cast<int>(n_embd / d);
    for (int head = 0; head < n_head; ++head) {  // E (q e)^2 = tr(Sq Se), query and error taken as independent
        const Moments q = query_moments(layer, head);
        const Moments e = moments(n_tokens, d, [&](int64_t i) { return errors.data() + i * n_embd + head * d; });
        double sum = 0;
        for (size_t i = 0; i < q.second.size(); ++i) sum += q.second[i] * e.second[i];
        result.logit_rms += sum / d / n_head;
    }
    result.logit_rms = std::sqrt(std::max(0.0, result.logit_rms));
    return result;
}

}  // namespace tq::tool
