#include "turboquant/cuda/attention_geometry.h"

#include <algorithm>
#include <string>

#include "turboquant/cuda/segments.h"

namespace tq::cuda {
namespace {

// The grid's y and z.
constexpr int64_t kMostStreams = 65535;
constexpr int64_t kMostCells = int64_t{1} << 30;  // cells are ints in kernels
constexpr int64_t kMostRows = int64_t{1} << 28;

constexpr int kRounds = 2;  // thread blocks for each that runs at the same time, so that the last ones end together

std::string text_of(int64_t n) {
    return std::to_string(n);
}

// What the CPU's plan takes and this one does not.
std::string missing_feature(const AttentionShape& s) {
    if (s.head_dim_k != s.head_dim_v) {
        return "head_dim " + text_of(s.head_dim_k) + " of keys and " + text_of(s.head_dim_v) +
               " of values: the CUDA engine has kernels for equal ones only";
    }
    if (s.max_bias > 0) return "max_bias (ALiBi) needs additive masks, which the CUDA engine does not have yet";
    if (s.n_exact > 0) return "the CUDA engine has no exact rows (sinks and a window in f16) yet";
    return "";
}

}  // namespace

Result<AttentionGeometry> attention_geometry(const AttentionShape& shape, int key_bits, int value_bits) {
    if (std::string reason = missing_feature(shape); !reason.empty())
        return Status(Error::kUnsupported, std::move(reason));
    if (shape.n_head_kv <= 0 || shape.n_head <= 0 || shape.n_head % shape.n_head_kv != 0) {
        return Status(Error::kUnsupported, "n_head " + text_of(shape.n_head) + " is not a multiple of n_head_kv " +
                                               text_of(shape.n_head_kv));
    }
    if (shape.n_tokens <= 0 || shape.n_kv <= 0 || shape.n_stream <= 0)
        return Status(Error::kInvalidArgument, "n_tokens, n_kv and n_stream must be positive");
    if (shape.window < 0 || (shape.window > 0 && !shape.causal))
        return Status(Error::kInvalidArgument, "window is " + text_of(shape.window) + "; allowed: 0, with causal more");
    if (shape.n_stream > kMostStreams || shape.n_kv > kMostCells || shape.n_tokens > kMostRows / shape.n_head) {
        return Status(Error::kInvalidArgument, "n_stream " + text_of(shape.n_stream) + ", n_kv " + text_of(shape.n_kv) +
                                                   " or n_tokens " + text_of(shape.n_tokens) +
                                                   " is too large; allowed: 65535, 2^30, 2^28 rows");
    }
    AttentionGeometry g{};
    g.shape = shape;
    g.key_bits = key_bits;
    g.value_bits = value_bits;
    g.group_size = shape.n_head / shape.n_head_kv;
    g.n_tiles = static_cast<int>((shape.n_tokens * g.group_size + kTileRows - 1) / kTileRows);
    g.n_segments = n_segments(shape.n_kv);
    g.partial_floats = static_cast<size_t>(kTileRows) * (static_cast<size_t>(shape.head_dim_v) + 2);
    const auto tickets = static_cast<size_t>(g.n_row_tiles()) * sizeof(uint32_t);
    g.partial_offset = (tickets + 255) / 256 * 256;
    const size_t n_partials =
        g.n_segments > 1 ? static_cast<size_t>(g.n_row_tiles()) * static_cast<size_t>(g.n_segments) : 0;
    g.workspace_bytes = g.partial_offset + n_partials * g.partial_floats * sizeof(float);
    return g;
}

int run_segments(const AttentionGeometry& g, int resident_blocks) {
    const int64_t rounds = g.n_row_tiles() * g.n_segments / (int64_t{kRounds} * std::max(1, resident_blocks));
    return static_cast<int>(std::clamp<int64_t>(rounds, 1, g.n_segments));
}

}  // namespace tq::cuda
