// What tests of attention's options share: a stream alone, tables that lack blocks, masks that say what an option says.
#pragma once

#include <limits>

#include "tests/support/attention_cases.h"
#include "tests/support/bytes.h"

namespace tq::test {

inline constexpr int kThreadNumbers[] = {1, 8};  // 8: long contexts are split

// Makes a call that of tokens [0, n_tokens) of one of its streams, which has n_kv cells.
inline void take_stream(AttentionShape& s, AttentionInputs& in, int64_t stream, int64_t n_kv, int64_t n_tokens) {
    in.q = at_byte(in.q, stream * in.q_stream_stride);
    in.out = at_byte(in.out, stream * in.out_stream_stride);
    if (in.lse) in.lse = at_byte(in.lse, stream * in.lse_stream_stride);
    if (in.mask) in.mask = at_byte(in.mask, stream * in.mask_stream_stride);
    in.k_first_stream += stream;
    in.v_first_stream += stream;
    in.n_kv_of_stream = in.n_tokens_of_stream = nullptr;
    s.n_stream = 1;
    s.n_kv = n_kv;
    s.n_tokens = n_tokens;
}

inline bool same_row(std::span<const float> a, std::span<const float> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// A block table under which a call's streams have records for some blocks only. The others' are so far away that
// reading them is a fault.
class TableOfSome {
  public:
    // has(stream of the call, block)
    template <class Has>
    TableOfSome(const PackedTensor& tensor, int64_t first_stream, int64_t n_stream, Has has)
        : n_blocks_(blocks_of_cells(tensor.n_cells)), table_(tensor.n_stream * n_blocks_, kNowhere) {
        for (int64_t stream = 0; stream < n_stream; ++stream)
            for (int64_t block = 0; block < n_blocks_; ++block) {
                const int64_t at = (first_stream + stream) * n_blocks_ + block;
                if (has(stream, block)) table_[at] = static_cast<int32_t>(at);
            }
    }
    const int32_t* data() const { return table_.data(); }

    static constexpr int32_t kNowhere = std::numeric_limits<int32_t>::min();

  private:
    int64_t n_blocks_;
    std::vector<int32_t> table_;
};

// The lse of each row, [stream][token][head] with gaps.
struct LseRows {
    explicit LseRows(const AttentionCase& c)
        : head(3), token(3 * c.n_head() + 2), stream(token * c.n_tokens), values(stream * c.n_stream, kUntouched) {}
    void ask(AttentionInputs& in) {
        in.lse = values.data();
        in.lse_head_stride = sizeof(float) * head;
        in.lse_token_stride = sizeof(float) * token;
        in.lse_stream_stride = sizeof(float) * stream;
    }
    float at(int64_t s, int64_t t, int h) const { return values[s * stream + t * token + h * head]; }

    static constexpr float kUntouched = AttentionProblem::kUntouched;
    int64_t head, token, stream;
    std::vector<float> values;
};

}  // namespace tq::test
