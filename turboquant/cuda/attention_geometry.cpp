#include "turboquant/cuda/attention_geometry.h"

#include <algorithm>
#include <string>

namespace tq::cuda {
namespace {

// The grid's y and z.
constexpr int64_t kMostStreams = 65535;
constexpr int64_t kMostCells = int64_t{1} << 30;  // cells are ints in kernels
constexpr int64_t kMostRows = int64_t{1} << 28;

constexpr int kBlocksOfMultiprocessor = 2;  // thread blocks; a third adds little, and a few left over take a round

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

// Cells of a row are shared out among so many thread blocks as run at the same time with those of the other rows.
int64_t blocks_of_run(const AttentionGeometry& g, int64_t n_blocks, int n_multiprocessors) {
    const int64_t of_row = int64_t{kBlocksOfMultiprocessor} * n_multiprocessors / g.n_row_tiles();
    // More rows than thread blocks at a time: runs of 2048 cells, so that the last ones end together.
    const int64_t wanted = of_row > 0 ? (n_blocks + of_row - 1) / of_row : int64_t{2} * kSegmentBlocks;
    return (std::min(wanted, n_blocks) + kSegmentBlocks - 1) / kSegmentBlocks * kSegmentBlocks;
}

void share_work(AttentionGeometry& g, bool batch_invariant, int n_multiprocessors) {
    const int64_t n_blocks = (g.shape.n_kv + kBlockCells - 1) / kBlockCells;
    int64_t run = blocks_of_run(g, n_blocks, n_multiprocessors);
    g.segments.even_blocks = batch_invariant ? 0 : static_cast<int>(run);
    g.n_segments = g.segments.count(g.shape.n_kv);
    // No segment is longer than a run.
    run = std::max(run, g.segments.first_block(g.n_segments) - g.segments.first_block(g.n_segments - 1));
    g.run_blocks = static_cast<int>(run);
}

}  // namespace

Result<AttentionGeometry> attention_geometry(const AttentionShape& shape, int key_bits, int value_bits,
                                             const AttentionOptions& options, int n_multiprocessors) {
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
    // Batch invariance leaves the number of tokens out of it: the sums of wide and narrow tiles differ.
    g.tile_rows = g.group_size * (options.batch_invariant ? 1 : shape.n_tokens) > 4 ? 8 : 4;
    g.n_tiles = static_cast<int>((shape.n_tokens * g.group_size + g.tile_rows - 1) / g.tile_rows);
    share_work(g, options.batch_invariant, n_multiprocessors);
    g.partial_floats = static_cast<size_t>(g.tile_rows) * (static_cast<size_t>(shape.head_dim_v) + 2);
    const auto tickets = static_cast<size_t>(g.n_row_tiles()) * sizeof(uint32_t);
    g.partial_offset = (tickets + 255) / 256 * 256;
    const size_t n_partials =
        g.n_segments > 1 ? static_cast<size_t>(g.n_row_tiles()) * static_cast<size_t>(g.n_segments) : 0;
    g.workspace_bytes = g.partial_offset + n_partials * g.partial_floats * sizeof(float);
    return g;
}

}  // namespace tq::cuda
