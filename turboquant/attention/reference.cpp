#include "turboquant/attention/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "turboquant/attention/cell_range.h"
#include "turboquant/base/half.h"

namespace tq {

float alibi_slope(float max_bias, int n_head, int head) {
    if (max_bias <= 0) return 1.0f;
    const int n_head_log2 = 1 << static_cast<int>(std::floor(std::log2(static_cast<float>(n_head))));
    const float m0 = std::pow(2.0f, -max_bias / static_cast<float>(n_head_log2));
    const float m1 = std::pow(2.0f, -(max_bias / 2.0f) / static_cast<float>(n_head_log2));
    return head < n_head_log2 ? std::pow(m0, static_cast<float>(head + 1))
                              : std::pow(m1, static_cast<float>(2 * (head - n_head_log2) + 1));
}

namespace {

struct Row {
    int64_t stream, token;
    int head;
    CellRange cells;  // that it may see, if its mask shows them
};

// Exact rows of a query as the codec would have them without loss; empty rows for other cells.
struct ExactCopies {
    std::vector<std::vector<float>> k, v;  // [cell]
};

std::vector<float> rotated(const BlockCodec& codec, const uint16_t* half) {
    const int head_dim = codec.head_dim();
    std::vector<float> row(codec.format().n_embd);
    for (size_t i = 0; i < row.size(); ++i) row[i] = half_to_float(half[i]);
    for (int head = 0; head * head_dim < codec.format().n_embd; ++head)
        codec.rotate_row(head, &row[head * head_dim], &row[head * head_dim]);
    return row;
}

ExactCopies exact_copies(const AttentionShape& s, const AttentionInputs& in, int64_t stream, int64_t token,
                         const CellRange& cells) {
    ExactCopies copies{std::vector<std::vector<float>>(s.n_kv), std::vector<std::vector<float>>(s.n_kv)};
    if (s.n_exact == 0) return copies;
    const uint16_t* mask =
        in.mask ? at_byte(in.mask, token * in.mask_token_stride + stream * in.mask_stream_stride) : nullptr;
    const auto visible = [&](int64_t cell) {
        return cell >= cells.first && cell < cells.end &&
               (!mask || half_to_float(mask[cell]) != -std::numeric_limits<float>::infinity());
    };
    for_exact_rows(*in.exact_k, *in.exact_v, in.k_first_stream + stream, in.v_first_stream + stream, token,
                   lengths_of_stream(s, in, stream).n_tokens, visible, [&](const ExactRow& row) {
                       copies.k[row.cell] = rotated(*in.k.codec, row.k);
                       copies.v[row.cell] = rotated(*in.v.codec, row.v);
                   });
    return copies;
}

double logit(const AttentionShape& s, const AttentionInputs& in, const Row& row, const float* q, const float* k,
             int64_t cell) {
    double dot = 0;
    for (int d = 0; d < s.head_dim_k; ++d) dot += static_cast<double>(q[d]) * k[d];
    dot *= s.scale;
    if (s.softcap > 0) dot = s.softcap * std::tanh(dot / s.softcap);
    if (in.mask) {
        const uint16_t* mask = at_byte(in.mask, row.token * in.mask_token_stride + row.stream * in.mask_stream_stride);
        dot += static_cast<double>(alibi_slope(s.max_bias, s.n_head, row.head)) * half_to_float(mask[cell]);
    }
    return dot;
}

void attend(const AttentionShape& s, const AttentionInputs& in, const Row& row, const std::vector<float>& keys,
            const std::vector<float>& values, const ExactCopies& exact) {
    const auto row_of = [](const std::vector<float>& exact_row, const float* decoded) {
        return exact_row.empty() ? decoded : exact_row.data();
    };
    const int head_kv = row.head / (s.n_head / s.n_head_kv);
    const int64_t k_width = in.k.codec->format().n_embd, v_width = in.v.codec->format().n_embd;
    std::vector<float> q(s.head_dim_k);
    to_floats(
        at_byte(in.q, row.token * in.q_token_stride + row.head * in.q_head_stride + row.stream * in.q_stream_stride),
        in.q_type, s.head_dim_k, q.data());
    in.k.codec->rotate_query(head_kv, q.data(), q.data());

    std::vector<double> logits(s.n_kv);
    double top = -std::numeric_limits<double>::infinity();
    for (int64_t cell = row.cells.first; cell < row.cells.end; ++cell) {
        logits[cell] = logit(s, in, row, q.data(),
                             row_of(exact.k[cell], &keys[cell * k_width]) + int64_t{head_kv} * s.head_dim_k, cell);
        top = std::max(top, logits[cell]);
    }
    if (in.sinks) top = std::max(top, static_cast<double>(in.sinks[row.head]));

    double sum = in.sinks ? std::exp(in.sinks[row.head] - top) : 0;
    std::vector<double> out(s.head_dim_v, 0.0);
    for (int64_t cell = row.cells.first; cell < row.cells.end; ++cell) {
        if (logits[cell] == -std::numeric_limits<double>::infinity()) continue;
        const double p = std::exp(logits[cell] - top);
        sum += p;
        const float* v = row_of(exact.v[cell], &values[cell * v_width]) + int64_t{head_kv} * s.head_dim_v;
        for (int d = 0; d < s.head_dim_v; ++d) out[d] += p * v[d];
    }
    std::vector<float> result(s.head_dim_v);
    for (int d = 0; d < s.head_dim_v; ++d) result[d] = sum == 0 ? 0.0f : static_cast<float>(out[d] / sum);
    in.v.codec->rotate_inverse(head_kv, result.data(), result.data());
    from_floats(result.data(), s.head_dim_v, in.out_type,
                at_byte(in.out, row.token * in.out_token_stride + row.head * in.out_head_stride +
                                    row.stream * in.out_stream_stride));
    if (!in.lse) return;
    *at_byte(in.lse,
             row.token * in.lse_token_stride + row.head * in.lse_head_stride + row.stream * in.lse_stream_stride) =
        sum == 0 ? -std::numeric_limits<float>::infinity() : static_cast<float>(top + std::log(sum));
}

}  // namespace

void attention_reference(const AttentionShape& s, const AttentionInputs& in) {
    const int64_t k_width = in.k.codec->format().n_embd, v_width = in.v.codec->format().n_embd;
    std::vector<float> keys(s.n_kv * k_width), values(s.n_kv * v_width);
    for (int64_t stream = 0; stream < s.n_stream; ++stream) {
        const StreamLengths lengths = lengths_of_stream(s, in, stream);
        const CellRange seen = cells_of_stream(s, lengths);
        for (int64_t cell = seen.first; cell < seen.end; ++cell) {
            in.k.codec->decode_rotated(in.k.blocks(in.k_first_stream + stream), cell, &keys[cell * k_width]);
            in.v.codec->decode_rotated(in.v.blocks(in.v_first_stream + stream), cell, &values[cell * v_width]);
        }
        for (int64_t token = 0; token < lengths.n_tokens; ++token) {
            const CellRange cells = cells_of_token(s, lengths, token);
            const ExactCopies exact = exact_copies(s, in, stream, token, cells);
            for (int head = 0; head < s.n_head; ++head)
                attend(s, in, {stream, token, head, cells}, keys, values, exact);
        }
    }
}

}  // namespace tq
