// One attention call with its data, for tests: made from a description, run on any ISA and any number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <ostream>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/packed_rows.h"
#include "tests/support/random.h"
#include "tests/support/vectors.h"
#include "turboquant/attention/plan.h"
#include "turboquant/attention/reference.h"
#include "turboquant/base/half.h"

namespace tq::test {

enum class Mask { kNone, kCausal, kHoles, kSlidingWindow, kSomeRowsFullyMasked, kBias };

struct AttentionCase {
    int head_dim_k = 64, head_dim_v = 64;
    int group_size = 1, n_head_kv = 1;
    int64_t n_tokens = 1, n_kv = 64;
    Codes keys = 4, values = 4;
    Mask mask = Mask::kNone;
    int64_t n_stream = 1, first_stream = 0;
    bool sinks = false;
    float softcap = 0, max_bias = 0;
    float query_size = 1;  // standard deviation of the query's values
    bool scaled = false;   // channel scales of keys and values
    ExactCells exact = {};

    int n_head() const { return group_size * n_head_kv; }
};

inline void PrintTo(const AttentionCase& c, std::ostream* out) {
    *out << "D " << c.head_dim_k << "/" << c.head_dim_v << " heads " << c.n_head() << "/" << c.n_head_kv << " tokens "
         << c.n_tokens << " cells " << c.n_kv << " k" << c.keys << "v" << c.values << " mask "
         << static_cast<int>(c.mask) << " streams " << c.n_stream << "+" << c.first_stream << (c.sinks ? " sinks" : "")
         << " softcap " << c.softcap << " ALiBi " << c.max_bias << (c.scaled ? " scaled" : "") << c.exact.name();
}

// Exact rows of K or V, as if all cells before the queries' had been written, and then theirs: in one ubatch, or one at
// a time up to a token.
class ExactSide {
  public:
    // dense: [stream][cell][n_embd]; n_tokens: of the last ubatch.
    ExactSide(const ExactCells& exact, const PackedRows& packed, const std::vector<float>& dense)
        : n_embd_(packed.width()),
          n_cells_(packed.n_cells),
          n_stream_(packed.n_stream),
          dense_(dense),
          slots_(ExactRows::bytes(exact, n_embd_, n_cells_, n_stream_) / sizeof(uint16_t)),
          rows(exact, n_embd_, n_cells_, n_stream_, slots_.data()) {}

    // Cells [first, first + n) of every stream.
    void write(int64_t first, int64_t n) {
        rows.commit();
        std::vector<int64_t> cells;
        for (int64_t stream = 0; stream < n_stream_; ++stream)
            for (int64_t i = 0; i < n; ++i) cells.push_back(stream * n_cells_ + first + i);
        staging_.assign(cells.size() * n_embd_, 0);
        rows.begin(cells, staging_.data());
        for (size_t i = 0; i < cells.size(); ++i) rows.store(static_cast<int64_t>(i), &dense_[cells[i] * n_embd_]);
    }

  private:
    int64_t n_embd_, n_cells_, n_stream_;
    const std::vector<float>& dense_;
    std::vector<uint16_t> slots_, staging_;

  public:
    ExactRows rows;
};

// 64-byte aligned memory of a plan.
class Workspace {
  public:
    explicit Workspace(size_t bytes) : memory_(bytes + 64) {}
    void* data() {
        void* p = memory_.data();
        size_t space = memory_.size();
        return std::align(64, space - 64, p, space);
    }

  private:
    Bytes memory_;
};

class AttentionProblem {
  public:
    // Cells that no mask shows, behind n_kv.
    static constexpr int64_t kPadding = 256;
    static constexpr float kUntouched = 12345.0f;

    explicit AttentionProblem(const AttentionCase& c, uint64_t seed = 1)
        : case_(c),
          random_(seed),
          key_scales_(make_scales(int64_t{c.n_head_kv} * c.head_dim_k)),
          value_scales_(make_scales(int64_t{c.n_head_kv} * c.head_dim_v)),
          keys_({Side::kKey, c.keys, c.head_dim_k, c.n_head_kv, c.n_kv + kPadding, c.n_stream + c.first_stream},
                available_isas().back(), given(key_scales_)),
          values_({Side::kValue, c.values, c.head_dim_v, c.n_head_kv, c.n_kv + kPadding, c.n_stream + c.first_stream},
                  available_isas().back(), given(value_scales_)) {
        dense_k = fill(keys_);
        dense_v = fill(values_);
        // Strides of no particular form: heads padded by 3 floats, tokens by 5.
        q_head_ = c.head_dim_k + 3;
        q_token_ = q_head_ * c.n_head() + 5;
        out_head_ = c.head_dim_v + 3;
        out_token_ = out_head_ * c.n_head() + 5;
        q = random_.normals(q_token_ * c.n_tokens * c.n_stream, c.query_size);
        for (int head = 0; head < c.n_head(); ++head) sinks.push_back(static_cast<float>(3 + 3 * random_.normal()));
        make_mask();
        if (c.exact.any()) write_exact(c.n_kv - c.n_tokens, {c.n_tokens});
    }

    // Exact rows as they are once the cells before `first` are written and then ubatches of these sizes.
    void write_exact(int64_t first, const std::vector<int64_t>& ubatches) {
        exact_k_.emplace(case_.exact, keys_, dense_k);
        exact_v_.emplace(case_.exact, values_, dense_v);
        for (ExactSide* side : {&*exact_k_, &*exact_v_}) {
            side->write(0, first);
            int64_t at = first;
            for (int64_t n : ubatches) side->write(std::exchange(at, at + n), n);
        }
    }

    const AttentionCase& description() const { return case_; }

    AttentionShape shape(int n_threads = 1) const {
        const float scale = 1 / std::sqrt(static_cast<float>(case_.head_dim_k));
        return {case_.head_dim_k, case_.head_dim_v, case_.n_head(), case_.n_head_kv,
                case_.n_tokens,   case_.n_kv,       case_.n_stream, scale,
                case_.softcap,    case_.max_bias,   n_threads,      case_.exact.n_per_query()};
    }

    AttentionInputs inputs(const RowCodec& key_codec, const RowCodec& value_codec, std::vector<float>& out) const {
        AttentionInputs in;
        in.q = q.data();
        in.q_token_stride = bytes_of(q_token_);
        in.q_head_stride = bytes_of(q_head_);
        in.q_stream_stride = bytes_of(q_token_ * case_.n_tokens);
        in.k = keys_.tensor();
        in.v = values_.tensor();
        in.k.codec = &key_codec;
        in.v.codec = &value_codec;
        in.k_first_stream = in.v_first_stream = case_.first_stream;
        in.mask = mask.empty() ? nullptr : mask.data();
        in.mask_token_stride = sizeof(uint16_t) * mask_token();
        in.mask_stream_stride = in.mask_token_stride * case_.n_tokens;
        if (exact_k_) in.exact_k = &exact_k_->rows, in.exact_v = &exact_v_->rows;
        in.sinks = case_.sinks ? sinks.data() : nullptr;
        in.out = out.data();
        in.out_head_stride = bytes_of(out_head_);
        in.out_token_stride = bytes_of(out_token_);
        in.out_stream_stride = bytes_of(out_token_ * case_.n_tokens);
        return in;
    }

    // Both write to the first stream; dense_k and dense_v keep what was there.
    void set_key(int64_t cell, const std::vector<float>& row) { keys_.encode(row, cell); }
    void set_value(int64_t cell, const std::vector<float>& row) { values_.encode(row, cell); }

    void fill_with_any_bytes() {
        for (Bytes* bytes : {&keys_.bytes, &values_.bytes}) {
            for (uint8_t& byte : *bytes) byte = static_cast<uint8_t>(random_.next());
        }
    }

    std::vector<float> empty_output() const {
        return std::vector<float>(out_token_ * case_.n_tokens * case_.n_stream, kUntouched);
    }

    using Runner = std::function<void(const AttentionPlan&, const AttentionInputs&, void* workspace)>;
    using Change = std::function<void(AttentionShape&, AttentionInputs&)>;

    // The strided output, gaps included. `change` may alter what is asked for.
    std::vector<float> run(Isa isa, int n_threads = 1, const Runner& runner = run_in_order,
                           const Change& change = {}) const {
        const RowCodec key_codec = codec_for(keys_, isa, given(key_scales_)),
                       value_codec = codec_for(values_, isa, given(value_scales_));
        std::vector<float> out = empty_output();
        AttentionShape s = shape(n_threads);
        AttentionInputs in = inputs(key_codec, value_codec, out);
        if (change) change(s, in);
        const AttentionPlan plan = AttentionPlan::create(s, key_codec, value_codec, cpu_engine(isa)).value();
        Workspace workspace(plan.workspace_bytes());
        if (const Status bound = plan.bind(in); !bound.ok()) {
            ADD_FAILURE() << bound.message();
            return out;
        }
        runner(plan, in, workspace.data());
        return out;
    }
    std::vector<float> run() const { return run(available_isas().back()); }
    std::vector<float> run_changed(const Change& change) const {
        return run(available_isas().back(), 1, run_in_order, change);
    }

    std::vector<float> reference() const {
        std::vector<float> out = empty_output();
        attention_reference(shape(), inputs(keys_.codec, values_.codec, out));
        return out;
    }

    static void run_in_order(const AttentionPlan& plan, const AttentionInputs& in, void* workspace) {
        plan.run_all(in, workspace);
    }

    // Each row of a strided output: fn(stream, token, head, values).
    template <class Fn>
    void for_rows(const std::vector<float>& out, Fn fn) const {
        for (int64_t stream = 0; stream < case_.n_stream; ++stream)
            for (int64_t token = 0; token < case_.n_tokens; ++token) {
                for (int head = 0; head < case_.n_head(); ++head)
                    fn(stream, token, head, row(out, stream, token, head));
            }
    }
    std::span<const float> row(const std::vector<float>& out, int64_t stream, int64_t token, int head) const {
        return std::span(out).subspan((stream * case_.n_tokens + token) * out_token_ + head * out_head_,
                                      case_.head_dim_v);
    }
    std::span<float> query(int64_t stream, int64_t token, int head) {
        return std::span(q).subspan((stream * case_.n_tokens + token) * q_token_ + head * q_head_, case_.head_dim_k);
    }
    std::span<const float> query(int64_t stream, int64_t token, int head) const {
        return const_cast<AttentionProblem*>(this)->query(stream, token, head);
    }

    int64_t mask_token() const { return case_.n_kv + kPadding; }
    uint16_t mask_at(int64_t stream, int64_t token, int64_t cell) const {
        return mask.empty() ? uint16_t{0} : mask[(stream * case_.n_tokens + token) * mask_token() + cell];
    }
    bool fully_masked(int64_t stream, int64_t token) const {
        for (int64_t cell = 0; cell < case_.n_kv; ++cell)
            if (mask_at(stream, token, cell) != kMasked) return false;
        return true;
    }

    // Vectors as the codec has them: a head's query over the scales of its keys, an output times those of its values.
    std::vector<float> scaled_query(std::span<const float> q, int head) const {
        std::vector<float> scaled(q.begin(), q.end());
        for (size_t i = 0; i < scaled.size(); ++i)
            scaled[i] /= key_scales_[head / case_.group_size * scaled.size() + i];
        return scaled;
    }
    std::vector<float> scaled_output(std::span<const float> out, int head) const {
        std::vector<float> scaled(out.begin(), out.end());
        for (size_t i = 0; i < scaled.size(); ++i)
            scaled[i] *= value_scales_[head / case_.group_size * scaled.size() + i];
        return scaled;
    }
    // Largest norm of a head's decoded row, times its scales.
    double largest_key() const { return largest_row(keys_, key_scales_, case_.head_dim_k); }
    double largest_value() const { return largest_row(values_, value_scales_, case_.head_dim_v); }

    const PackedRows& keys() const { return keys_; }
    const PackedRows& values() const { return values_; }

    static constexpr uint16_t kMasked = 0xfc00;
    std::vector<float> q, sinks, dense_k, dense_v;  // dense: [stream][cell][n_embd]
    std::vector<uint16_t> mask;                     // [stream][token][n_kv + kPadding]; empty: none

  private:
    static size_t bytes_of(int64_t floats) { return sizeof(float) * static_cast<size_t>(floats); }
    static RowCodec codec_for(const PackedRows& rows, Isa isa, const std::vector<float>& scales) {
        return RowCodec::create(rows.codec.format(), rows.codec.head_dim(), isa, scales).value();
    }
    std::vector<float> given(const std::vector<float>& scales) const {
        return case_.scaled ? scales : std::vector<float>();
    }
    std::vector<float> make_scales(int64_t n) {
        return case_.scaled ? random_scales(n, random_) : std::vector<float>(static_cast<size_t>(n), 1.0f);
    }

    std::vector<float> fill(PackedRows& packed) {
        std::vector<float> dense;
        for (int64_t stream = 0; stream < packed.n_stream; ++stream)
            for (int64_t cell = 0; cell < packed.n_cells; ++cell) {
                const std::vector<float> row = random_.normals(packed.width(), 0.5 + random_.uniform());
                packed.encode(row, cell, stream);
                dense.insert(dense.end(), row.begin(), row.end());
            }
        return dense;
    }

    double largest_row(const PackedRows& packed, const std::vector<float>& scales, int head_dim) const {
        double largest = 0;
        for (int64_t stream = case_.first_stream; stream < case_.first_stream + case_.n_stream; ++stream) {
            for (int64_t cell = 0; cell < case_.n_kv; ++cell) {
                std::vector<float> row = packed.decode(cell, stream);
                for (size_t i = 0; i < row.size(); ++i) row[i] *= scales[i];
                for (int h = 0; h < case_.n_head_kv; ++h)
                    largest = std::max(largest, norm(std::span(row).subspan(h * head_dim, head_dim)));
            }
        }
        return largest;
    }

    bool shown(int64_t token, int64_t cell) {
        const int64_t position = case_.n_kv - case_.n_tokens + token;
        switch (case_.mask) {
            case Mask::kCausal:
                return cell <= position;
            case Mask::kHoles:
                return random_.below(3) > 0;
            case Mask::kSlidingWindow:
                return cell <= position && cell > position - 100;
            case Mask::kSomeRowsFullyMasked:
                return token % 2 == 1 && cell <= position;
            default:
                return true;
        }
    }
    void make_mask() {
        if (case_.mask == Mask::kNone) return;
        const bool biased = case_.mask == Mask::kBias || case_.max_bias > 0;
        mask.assign(case_.n_stream * case_.n_tokens * mask_token(), kMasked);
        for (int64_t row = 0; row < case_.n_stream * case_.n_tokens; ++row)
            for (int64_t cell = 0; cell < case_.n_kv; ++cell) {
                const int64_t token = row % case_.n_tokens;
                const auto bias = static_cast<float>(cell - (case_.n_kv - case_.n_tokens + token)) / 16;
                if (shown(token, cell)) mask[row * mask_token() + cell] = biased ? float_to_half(bias) : uint16_t{0};
            }
    }

    AttentionCase case_;
    Random random_;
    std::vector<float> key_scales_, value_scales_;  // scales of all channels, 1 where the case has none
    PackedRows keys_, values_;
    std::optional<ExactSide> exact_k_, exact_v_;  // exact rows of the case's cells, if it has some
    int64_t q_head_, q_token_, out_head_, out_token_;
};

// The bound of plan.h for the rows of a problem.
class AccuracyBound {
  public:
    explicit AccuracyBound(const AttentionProblem& problem)
        : problem_(problem), largest_key_(problem.largest_key()), largest_value_(problem.largest_value()) {}

    double allowed(int64_t stream, int64_t token, int head) const {
        const RowCodec& keys = problem_.keys().codec;
        const std::span<const float> q = problem_.query(stream, token, head);
        std::vector<float> rotated(q.size());
        keys.kernels().rotate_query(keys.rotation(head / problem_.description().group_size), q.data(), rotated.data());
        double largest = 0;
        for (float x : rotated) largest = std::max(largest, std::abs(double{x}));
        const double query_error = kQueryError * problem_.shape().scale * largest * largest_key_;
        return (weight_error(problem_.description().values.bits) + query_error) * largest_value_;
    }
    double error(std::span<const float> out, std::span<const float> reference, int head) const {
        return distance(problem_.scaled_output(out, head), problem_.scaled_output(reference, head));
    }

  private:
    const AttentionProblem& problem_;
    double largest_key_, largest_value_;
};

}  // namespace tq::test
