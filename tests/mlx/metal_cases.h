// The calls of the nodes that are made on the fake Metal device and on the CPU.
#pragma once

#include <cstring>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "append.h"
#include "attend.h"
#include "decode.h"
#include "nodes.h"

namespace tq::test {

namespace mx = ::mlx::core;
using namespace mlx_plugin;

struct MetalCase {
    const char* preset;
    int n_head_kv, head_dim_k, head_dim_v, group;
    std::vector<int64_t> before;  // cells of each stream
    std::vector<int64_t> tokens;  // new ones of each stream
    int64_t window = 0;
    bool mask = false, sinks = false, half = false, scaled = false;
    bool shared = false;  // someone else may read the records of the cells before
};

inline void PrintTo(const MetalCase& c, std::ostream* out) {
    *out << c.preset << ", " << c.n_head_kv << " KV heads of " << c.head_dim_k << "/" << c.head_dim_v;
    for (size_t i = 0; i < c.before.size(); ++i) *out << ", " << c.before[i] << "+" << c.tokens[i] << " cells";
}

inline std::vector<MetalCase> metal_cases() {
    return {
        {"k4v4", 2, 64, 64, 4, {100}, {1}},                                // decoding, one chunk
        {"k4v4", 1, 64, 64, 4, {1300}, {1}},                               // several chunks: partial results are merged
        {"k4v4", 2, 64, 64, 4, {70}, {40}},                                // prefill
        {"k4v4", 2, 64, 64, 4, {0}, {66}},                                 // the first rows
        {"k8v8", 2, 64, 64, 1, {100}, {2}},                                // wide weights
        {"k3v2", 2, 128, 64, 3, {130}, {1}},                               // other sizes of V
        {"fast", 2, 64, 64, 3, {150}, {1}},                                // centered keys, sinks and a window
        {"fast", 2, 64, 64, 3, {40}, {30}},                                //
        {"fast", 2, 64, 64, 3, {150, 3, 64}, {5, 0, 2}},                   // ragged
        {"small", 2, 64, 64, 3, {70}, {2}},                                // trellis codes
        {"k4v4", 2, 64, 64, 4, {300}, {3}, 100},                           // sliding window
        {"fast", 2, 64, 64, 3, {150}, {3}, 20},                            //
        {"k4v4", 2, 64, 64, 4, {100}, {3}, 0, true, true},                 // a mask, sink logits
        {"k4v4", 2, 64, 64, 4, {100}, {3}, 0, false, false, true},         // f16
        {"k4v4", 2, 64, 64, 4, {100}, {3}, 0, false, false, false, true},  // channel scales
        {"k4v4", 2, 64, 64, 4, {100}, {3}, 0, false, false, false, false, true},  // records are copied
    };
}

// Everything that a case gives to the nodes; the same numbers each time.
class MetalProblem {
  public:
    explicit MetalProblem(const MetalCase& c) : case_(c) {
        const LayerShape shape{c.n_head_kv, c.head_dim_k, c.head_dim_v};
        auto made = LayerCodec::create(c.preset, 0, shape, scales(c.head_dim_k), scales(c.head_dim_v));
        codec = value_of(made);
    }

    LayerCodecPtr codec;

    // In place if the records' room is enough.
    AppendCall append_call(Side side) const {
        AppendCall call = old_call(side);
        const int64_t n_blocks = call.n_blocks;
        call.streams.clear();
        for (size_t i = 0; i < case_.tokens.size(); ++i) {
            call.streams.push_back({case_.before[i], case_.tokens[i]});
            call.n_blocks = std::max(call.n_blocks, blocks_of_cells(case_.before[i] + case_.tokens[i]));
        }
        const bool has_records = std::ranges::max(case_.before) > 0;
        call.in_place = has_records && call.n_blocks == n_blocks && !case_.shared;
        return call;
    }

    AttendCall attend_call() const {
        AttendCall call;
        call.scale = 0.2f;
        call.causal = !case_.mask;
        call.window = case_.window;
        for (size_t i = 0; i < case_.tokens.size(); ++i) {
            call.streams.push_back({case_.before[i] + case_.tokens[i], case_.tokens[i],
                                    std::max<int64_t>(0, case_.before[i] - codec->exact().n_kept())});
        }
        return call;
    }

    int n_stream() const { return static_cast<int>(case_.tokens.size()); }
    int n_tokens() const { return static_cast<int>(std::ranges::max(case_.tokens)); }
    int n_kv() const {
        int64_t most = 0;
        for (const StreamCells& stream : attend_call().streams) most = std::max(most, stream.n_kv);
        return static_cast<int>(most);
    }

    mx::array rows(int seed, int heads, int n, int dim) const {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        std::vector<float> values(static_cast<size_t>(n_stream()) * heads * n * dim);
        for (float& value : values) value = normal(random);
        return mx::astype(mx::array(values.data(), {n_stream(), heads, n, dim}),
                          case_.half ? mx::float16 : mx::float32);
    }
    mx::array new_rows(Side side) const {
        return rows(side == Side::kKey ? 1 : 2, case_.n_head_kv, n_tokens(), codec->shape().head_dim(side));
    }
    // Rows of the cells before, for all streams as many as the longest has.
    mx::array old_rows(Side side) const {
        const int n = static_cast<int>(std::ranges::max(case_.before));
        return rows(side == Side::kKey ? 3 : 4, case_.n_head_kv, n, codec->shape().head_dim(side));
    }
    AppendCall old_call(Side side) const {
        AppendCall call{side, {}, 1, false};
        for (int64_t before : case_.before) {
            call.streams.push_back({0, before});
            call.n_blocks = std::max(call.n_blocks, blocks_of_cells(before));
        }
        return call;
    }

    AttendInputs attend_inputs(const mx::array& keys, const mx::array& values,
                               const std::optional<mx::array>& exact_keys,
                               const std::optional<mx::array>& exact_values) const {
        AttendInputs in{
            rows(5, case_.n_head_kv * case_.group, n_tokens(), case_.head_dim_k), keys, values, {}, {}, {}, {}};
        if (case_.mask) {
            std::mt19937 random(6);
            std::vector<float> mask(static_cast<size_t>(n_tokens()) * n_kv());
            for (float& value : mask) value = random() % 3 == 0 ? -INFINITY : static_cast<float>(random() % 100) / 50;
            in.mask = mx::astype(mx::array(mask.data(), {1, n_tokens(), n_kv()}), mx::float16);
        }
        if (case_.sinks) in.sinks = mx::linspace(-1, 2, case_.n_head_kv * case_.group);
        if (exact_keys) {
            in.exact_keys = ExactSide{*exact_keys, new_rows(Side::kKey)};
            in.exact_values = ExactSide{*exact_values, new_rows(Side::kValue)};
        }
        return in;
    }

    mx::array empty_records(Side side) const {
        return mx::zeros({n_stream(), 0, static_cast<int>(codec->side(side).format().block_bytes())}, mx::uint8);
    }
    std::optional<mx::array> empty_exact(Side side) const {
        if (!codec->exact().any()) return {};
        return mx::zeros({n_stream(), static_cast<int>(codec->exact().n_slots()),
                          static_cast<int>(codec->side(side).format().n_embd)},
                         mx::float16);
    }

  private:
    std::vector<float> scales(int head_dim) const {
        if (!case_.scaled) return {};
        std::vector<float> made(static_cast<size_t>(case_.n_head_kv) * head_dim);
        for (size_t i = 0; i < made.size(); ++i) made[i] = 0.5f + static_cast<float>(i % 7) / 4;
        return made;
    }

    MetalCase case_;
};

}  // namespace tq::test
