#include "turboquant/attention/plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

#include "turboquant/attention/cell_range.h"
#include "turboquant/attention/exact_list.h"
#include "turboquant/attention/kernels.h"
#include "turboquant/base/half.h"

namespace tq {
namespace {

size_t align_up(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

std::string text_of(int64_t n) {
    return std::to_string(n);
}

// Streams and cells that a call reads, [0, n_kv) of each stream, have to be there.
Status check_range(const char* name, const PackedTensor& tensor, int64_t first_stream, const AttentionShape& shape) {
    if (shape.n_kv > tensor.n_cells) {
        return Status(Error::kInvalidArgument, "n_kv " + text_of(shape.n_kv) + " is larger than the " + name +
                                                   " tensor's " + text_of(tensor.n_cells) + " cells");
    }
    if (first_stream < 0 || first_stream > tensor.n_stream || shape.n_stream > tensor.n_stream - first_stream) {
        return Status(Error::kInvalidArgument, "n_stream " + text_of(shape.n_stream) + " from stream " +
                                                   text_of(first_stream) + " on: the " + name + " tensor has " +
                                                   text_of(tensor.n_stream));
    }
    return {};
}

// Blocks that a call reads have to have records. A plain tensor has them all; a block table may say anything of others.
Status check_records(const char* name, const PackedTensor& tensor, int64_t first_stream, const AttentionShape& shape,
                     const AttentionInputs& in) {
    const int64_t n_blocks = blocks_of_cells(tensor.n_cells);
    if (!tensor.block_table) {
        if (tensor.n_records >= tensor.n_stream * n_blocks) return {};
        return Status(Error::kInvalidArgument, std::string("the ") + name + " tensor has " + text_of(tensor.n_records) +
                                                   " records; its cells need " + text_of(tensor.n_stream * n_blocks));
    }
    for (int64_t i = 0; i < shape.n_stream; ++i) {
        const int64_t stream = first_stream + i;
        const CellRange cells = cells_of_stream(shape, lengths_of_stream(shape, in, i));
        for (int64_t block = cells.first / kBlockCells; block < blocks_of_cells(cells.end); ++block) {
            const int64_t record = tensor.block_table[stream * n_blocks + block];
            if (record >= 0 && record < tensor.n_records) continue;
            return Status(Error::kInvalidArgument, std::string("the ") + name + " tensor's block table has record " +
                                                       text_of(record) + " for block " + text_of(block) +
                                                       " of stream " + text_of(stream) + "; allowed: 0 to " +
                                                       text_of(tensor.n_records - 1));
        }
    }
    return {};
}

// lengths: of each stream, or null.
Status check_lengths(const char* name, const int64_t* lengths, int64_t n_stream, int64_t most) {
    for (int64_t stream = 0; lengths && stream < n_stream; ++stream) {
        if (lengths[stream] >= 0 && lengths[stream] <= most) continue;
        return Status(Error::kInvalidArgument, std::string(name) + " of stream " + text_of(stream) + " is " +
                                                   text_of(lengths[stream]) + "; allowed: 0 to " + text_of(most));
    }
    return {};
}

Status check_window(const AttentionShape& s) {
    if (s.window < 0)
        return Status(Error::kInvalidArgument, "window is " + text_of(s.window) + "; allowed: 0 and more");
    if (s.window > 0 && !s.causal)
        return Status(Error::kInvalidArgument, "window is " + text_of(s.window) + "; without causal only 0 is allowed");
    return {};
}

// At most so many cells does a token see, or a tile of tokens.
int64_t most_seen(const AttentionShape& s) {
    return s.window > 0 && s.window < s.n_kv ? std::min(s.n_kv, s.window + s.n_tokens) : s.n_kv;
}

// Cuts the work into items: as many heads to a tile as leave enough items for the threads.
void share_work(AttentionGeometry& g) {
    const AttentionShape& s = g.shape;
    const int64_t wanted = s.n_threads > 1 ? int64_t{kItemsPerThread} * s.n_threads : 1;
    const int64_t most_parts = n_super_chunks(most_seen(s));
    const auto n_tiles = [&](int heads) { return s.n_stream * ((s.n_head_kv + heads - 1) / heads) * g.n_row_tiles; };
    g.heads_per_tile = static_cast<int>(std::clamp<int64_t>(kMaxTileRows / g.rows_per_head_kv, 1, s.n_head_kv));
    while (g.heads_per_tile > 1 && n_tiles(g.heads_per_tile) * most_parts < wanted) --g.heads_per_tile;
    const int64_t tiles = n_tiles(g.heads_per_tile);
    g.n_head_tiles = (s.n_head_kv + g.heads_per_tile - 1) / g.heads_per_tile;
    g.n_parts = std::min(most_parts, (wanted + tiles - 1) / tiles);
}

Status check_codec(const char* name, const BlockCodec& codec, Side side, int head_dim, const AttentionShape& shape) {
    const RowFormat& format = codec.format();
    if (format.side != side || codec.head_dim() != head_dim || format.n_embd != int64_t{head_dim} * shape.n_head_kv) {
        return Status(Error::kInvalidArgument,
                      std::string("the ") + name + " tensor is not packed for this head_dim and n_head_kv");
    }
    return {};
}

std::string codes_of(const RowFormat& format) {
    return text_of(format.n_embd) + " values of " + text_of(format.bits) + (format.centered() ? "c" : "") +
           (format.trellis() ? "t" : "") + " bits";
}

// Every size of the plan is below the product of these times 2^16, which has to fit 63 bits.
bool is_too_large(const AttentionShape& s) {
    const double rows = static_cast<double>(s.n_stream) * static_cast<double>(s.n_tokens) * s.n_head;
    return rows * static_cast<double>(s.n_kv) > 0x1p46 || s.n_threads > (1 << 16) || s.n_exact > int64_t{1} << 32;
}

}  // namespace

float log_sum_exp(float max, float sum) {
    if (sum == 0) return -std::numeric_limits<float>::infinity();
    return static_cast<float>((max + std::log2(static_cast<double>(sum))) * std::numbers::ln2);
}

std::string unsupported_reason(const AttentionShape& s) {
    for (int head_dim : {s.head_dim_k, s.head_dim_v}) {
        if (head_dim < kMinHeadDim || head_dim > kMaxHeadDim || head_dim % kStepDims != 0) {
            return "head_dim " + std::to_string(head_dim) + " is not a multiple of 16 in 16..512";
        }
    }
    if (s.n_head_kv <= 0 || s.n_head <= 0 || s.n_head % s.n_head_kv != 0) {
        return "n_head " + std::to_string(s.n_head) + " is not a multiple of n_head_kv " + std::to_string(s.n_head_kv);
    }
    return "";
}

Result<AttentionPlan> AttentionPlan::create(const AttentionShape& shape, const BlockCodec& keys,
                                            const BlockCodec& values, const Engine& engine) {
    if (std::string reason = unsupported_reason(shape); !reason.empty())
        return Status(Error::kUnsupported, std::move(reason));
    if (shape.n_tokens <= 0 || shape.n_kv <= 0 || shape.n_stream <= 0 || shape.n_threads <= 0) {
        return Status(Error::kInvalidArgument, "n_tokens, n_kv, n_stream and n_threads must be positive");
    }
    if (shape.n_exact < 0)
        return Status(Error::kInvalidArgument, "n_exact is " + text_of(shape.n_exact) + "; allowed: 0 and more");
    if (Status s = check_window(shape); !s.ok()) return s;
    if (Status s = check_codec("key", keys, Side::kKey, shape.head_dim_k, shape); !s.ok()) return s;
    if (Status s = check_codec("value", values, Side::kValue, shape.head_dim_v, shape); !s.ok()) return s;
    if (is_too_large(shape)) {
        return Status(Error::kInvalidArgument,
                      "n_stream " + text_of(shape.n_stream) + ", n_tokens " + text_of(shape.n_tokens) + ", n_head " +
                          text_of(shape.n_head) + ", n_kv " + text_of(shape.n_kv) + ", n_threads " +
                          text_of(shape.n_threads) + " or n_exact " + text_of(shape.n_exact) + " is too large");
    }

    AttentionPlan plan;
    plan.kernels_ = engine.attention;
    AttentionGeometry& g = plan.geometry_;
    plan.keys_ = {keys.format(), keys.head_dim()};
    plan.values_ = {values.format(), values.head_dim()};
    g.shape = shape;
    g.key_bits = keys.format().bits;
    g.value_bits = values.format().bits;
    g.keys_centered = keys.format().centered();
    g.group_size = shape.n_head / shape.n_head_kv;
    g.rows_per_head_kv = shape.n_tokens * g.group_size;
    g.n_row_tiles = (g.rows_per_head_kv + kMaxTileRows - 1) / kMaxTileRows;
    g.n_super_chunks = n_super_chunks(shape.n_kv);
    share_work(g);

    const int64_t n_rows = shape.n_stream * shape.n_tokens * shape.n_head;
    g.query_bytes = align_up(plan.kernels_->query_bytes(shape));
    g.partial_floats = 16 + shape.head_dim_v;
    g.scratch_bytes = plan.kernels_->scratch_bytes(g);
    g.scratch_offset = align_up(n_rows * g.query_bytes);
    g.partial_offset = g.scratch_offset + shape.n_threads * g.scratch_bytes;
    g.exact_offset =
        align_up(g.partial_offset + (g.split() ? n_rows * g.n_super_chunks * g.partial_floats * sizeof(float) : 0));
    g.exact_bytes = sizeof(ExactList) + std::min(shape.n_exact, shape.n_kv) * sizeof(ExactList::Row);
    const int64_t n_lists = shape.n_exact > 0 ? shape.n_stream * shape.n_tokens : 0;
    g.mask_offset = align_up(g.exact_offset + n_lists * g.exact_bytes);
    g.workspace_bytes = g.mask_offset + n_lists * shape.n_kv * sizeof(uint16_t);
    return plan;
}

Status AttentionPlan::check_tensor(const char* name, const Format& format, const PackedTensor& tensor,
                                   int64_t first_stream, const AttentionInputs& in) const {
    if (!tensor.codec || !tensor.records)
        return Status(Error::kInvalidArgument, std::string("the ") + name + " tensor is null");
    if (tensor.codec->format() != format.rows || tensor.codec->head_dim() != format.head_dim) {
        return Status(Error::kInvalidArgument,
                      std::string("the ") + name + " tensor has heads of " + text_of(tensor.codec->head_dim()) + ", " +
                          codes_of(tensor.codec->format()) + "; planned: " + text_of(format.head_dim) + ", " +
                          codes_of(format.rows));
    }
    if (Status s = check_range(name, tensor, first_stream, geometry_.shape); !s.ok()) return s;
    return check_records(name, tensor, first_stream, geometry_.shape, in);
}

Status AttentionPlan::bind(const AttentionInputs& in) const {
    const AttentionShape& s = geometry_.shape;
    if (!in.q || !in.out) return Status(Error::kInvalidArgument, "q or out is null");
    if (Status e = check_lengths("n_kv", in.n_kv_of_stream, s.n_stream, s.n_kv); !e.ok()) return e;
    if (Status e = check_lengths("n_tokens", in.n_tokens_of_stream, s.n_stream, s.n_tokens); !e.ok()) return e;
    if (Status e = check_tensor("key", keys_, in.k, in.k_first_stream, in); !e.ok()) return e;
    if (Status e = check_tensor("value", values_, in.v, in.v_first_stream, in); !e.ok()) return e;
    return bind_exact(in);
}

Status AttentionPlan::bind_exact(const AttentionInputs& in) const {
    const int64_t n_exact = geometry_.shape.n_exact;
    if (!in.exact_k != !in.exact_v) return Status(Error::kInvalidArgument, "exact rows of keys or of values alone");
    if ((n_exact > 0) != (in.exact_k != nullptr)) {
        return Status(Error::kInvalidArgument,
                      "n_exact is " + text_of(n_exact) +
                          (in.exact_k ? ", and there are exact rows" : ", and there are no exact rows"));
    }
    if (!in.exact_k) return {};
    for (const ExactRows* rows : {in.exact_k, in.exact_v}) {
        if (rows->cells().n_per_query() <= n_exact) continue;
        return Status(Error::kInvalidArgument,
                      "n_exact is " + text_of(n_exact) + "; a query may take " + text_of(rows->cells().n_per_query()));
    }
    return {};
}

int64_t AttentionPlan::n_items(AttentionPhase phase) const {
    const AttentionShape& s = geometry_.shape;
    switch (phase) {
        case AttentionPhase::kPrepare:
            return s.n_stream * s.n_tokens * s.n_head_kv;
        case AttentionPhase::kAttend:
            return s.n_stream * geometry_.n_head_tiles * geometry_.n_row_tiles * geometry_.n_parts;
        case AttentionPhase::kMerge:
            return geometry_.split() ? s.n_stream * s.n_tokens * s.n_head : 0;
    }
    return 0;
}

void AttentionPlan::run(AttentionPhase phase, int64_t item, int thread, const AttentionInputs& inputs,
                        void* workspace) const {
    char* memory = static_cast<char*>(workspace);
    switch (phase) {
        case AttentionPhase::kPrepare:
            if (geometry_.shape.n_exact > 0) prepare_exact(item, inputs, memory);
            return kernels_->prepare(geometry_, item, inputs, memory);
        case AttentionPhase::kAttend:
            if (geometry_.shape.n_exact > 0)
                return kernels_->attend(geometry_, item, thread, with_hidden_cells(inputs, memory), memory);
            return kernels_->attend(geometry_, item, thread, inputs, memory);
        case AttentionPhase::kMerge:
            return kernels_->merge(geometry_, item, inputs, memory);
    }
}

// Makes the list of the cells that the token attends to exactly, and a mask that hides these from what works on the
// codes; of the mask only what the token may see is written, and read. The first KV head's item does it for all, since
// heads do not differ here.
void AttentionPlan::prepare_exact(int64_t item, const AttentionInputs& in, char* workspace) const {
    const AttentionShape& s = geometry_.shape;
    if (item % s.n_head_kv != 0) return;
    const int64_t row = item / s.n_head_kv, stream = row / s.n_tokens, token = row % s.n_tokens;
    const StreamLengths lengths = lengths_of_stream(s, in, stream);
    if (token >= lengths.n_tokens) return;
    const CellRange cells = cells_of_token(s, lengths, token);
    const uint16_t* mask =
        in.mask ? at_byte(in.mask, stream * in.mask_stream_stride + token * in.mask_token_stride) : nullptr;
    uint16_t* hiding = reinterpret_cast<uint16_t*>(workspace + geometry_.mask_offset) + row * s.n_kv;
    if (mask)
        std::copy(mask + cells.first, mask + cells.end, hiding + cells.first);
    else
        std::fill(hiding + cells.first, hiding + cells.end, uint16_t{0});

    ExactList& list = *exact_list(geometry_, workspace, row);
    list.count = 0;
    const auto visible = [&](int64_t cell) {
        return cell >= cells.first && cell < cells.end && (!mask || mask[cell] != kHalfMinusInfinity);
    };
    for_exact_rows(*in.exact_k, *in.exact_v, in.k_first_stream + stream, in.v_first_stream + stream, token,
                   lengths.n_tokens, visible, [&](const ExactRow& exact) {
                       list.rows[list.count++] = {exact.k, exact.v, mask ? half_to_float(mask[exact.cell]) : 0.0f};
                       hiding[exact.cell] = kHalfMinusInfinity;
                   });
}

AttentionInputs AttentionPlan::with_hidden_cells(const AttentionInputs& inputs, char* workspace) const {
    AttentionInputs in = inputs;
    in.mask = reinterpret_cast<const uint16_t*>(workspace + geometry_.mask_offset);
    in.mask_token_stride = sizeof(uint16_t) * geometry_.shape.n_kv;
    in.mask_stream_stride = in.mask_token_stride * geometry_.shape.n_tokens;
    return in;
}

void AttentionPlan::run_all(const AttentionInputs& inputs, void* workspace) const {
    for (AttentionPhase phase : {AttentionPhase::kPrepare, AttentionPhase::kAttend, AttentionPhase::kMerge}) {
        for (int64_t item = 0; item < n_items(phase); ++item) run(phase, item, 0, inputs, workspace);
    }
}

}  // namespace tq
