// Attention by the shaders, lane by lane, has the bits of the CPU's kernels.
#include <bit>

#include <gtest/gtest.h>

#include "attention_shapes.h"
#include "metal_attention.h"
#include "tests/support/attention_variants.h"

TQ_METAL_LIBRARY(metal_attention);

namespace tq::test {
namespace {

template <class T>
void expect_same_bits(const std::vector<T>& out, const std::vector<T>& expected) {
    ASSERT_EQ(out.size(), expected.size());
    size_t different = 0, first = 0;
    for (size_t i = 0; i < out.size(); ++i) {
        if (std::memcmp(&out[i], &expected[i], sizeof(T)) == 0) continue;
        if (different++ == 0) first = i;
    }
    EXPECT_EQ(different, 0u) << "of " << out.size() << ", first at " << first << ": " << out[first] << " instead of "
                             << expected[first];
}

void expect_bits_of_cpu(const AttentionProblem& problem, const MetalOptions& options = {}) {
    expect_same_bits(run_on_metal(msl_library_metal_attention, problem, options),
                     problem.run(Isa::kScalar, 1, AttentionProblem::run_in_order, options.change));
}

class MetalAttentionBits : public testing::TestWithParam<AttentionCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, MetalAttentionBits, testing::ValuesIn(metal_attention_cases()));

TEST_P(MetalAttentionBits, AreThoseOfTheCpu) {
    expect_bits_of_cpu(AttentionProblem(GetParam()));
}

TEST(MetalAttention, MergesSuperChunksOfSeveralChunks) {
    MetalOptions options;
    options.check = false;
    expect_bits_of_cpu(AttentionProblem(long_attention_case()), options);
}

class VariedMetalAttention : public testing::TestWithParam<AttentionCase> {
  protected:
    const AttentionProblem problem_{GetParam()};
    const int64_t n_kv_ = GetParam().n_kv, n_tokens_ = GetParam().n_tokens;
};
INSTANTIATE_TEST_SUITE_P(Cases, VariedMetalAttention, testing::ValuesIn(varied_attention_cases()));

TEST_P(VariedMetalAttention, CausalAndWindowed) {
    for (int64_t window : {int64_t{0}, int64_t{1}, int64_t{70}, n_kv_ - 64, n_kv_}) {
        expect_bits_of_cpu(problem_, {[&](AttentionShape& s, AttentionInputs&) {
                               s.causal = true;
                               s.window = window;
                           }});
    }
}

TEST_P(VariedMetalAttention, RaggedLengths) {
    const std::vector<int64_t> n_kv = {n_kv_ - 1, 3, 65}, n_tokens = {n_tokens_, 1, 0};
    for (bool causal : {false, true}) {
        for (int64_t window : {int64_t{0}, int64_t{40}}) {
            if (window > 0 && !causal) continue;
            expect_bits_of_cpu(problem_, {[&](AttentionShape& s, AttentionInputs& in) {
                                   s.causal = causal;
                                   s.window = window;
                                   in.n_kv_of_stream = n_kv.data();
                                   in.n_tokens_of_stream = n_tokens.data();
                               }});
        }
    }
}

// Records in the opposite order, and a table that says where each is.
TEST_P(VariedMetalAttention, BlockTables) {
    const auto reversed = [](const PackedTensor& t, std::vector<uint8_t>& records, std::vector<int32_t>& table) {
        const size_t bytes = t.codec->format().block_bytes();
        records.resize(static_cast<size_t>(t.n_records) * bytes + kRecordAlignment);
        uint8_t* aligned =
            records.data() + (kRecordAlignment - reinterpret_cast<uintptr_t>(records.data()) % kRecordAlignment);
        for (int64_t i = 0; i < t.n_records; ++i) {
            table.push_back(static_cast<int32_t>(t.n_records - 1 - i));
            std::memcpy(aligned + static_cast<size_t>(table.back()) * bytes, t.records + static_cast<size_t>(i) * bytes,
                        bytes);
        }
        PackedTensor moved = t;
        moved.records = aligned;
        moved.block_table = table.data();
        return moved;
    };
    std::vector<uint8_t> keys, values;
    std::vector<int32_t> key_table, value_table;
    const PackedTensor k = reversed(problem_.keys().tensor(), keys, key_table),
                       v = reversed(problem_.values().tensor(), values, value_table);
    expect_bits_of_cpu(problem_, {[&](AttentionShape&, AttentionInputs& in) {
                           in.k.records = k.records;
                           in.v.records = v.records;
                           in.k.block_table = k.block_table;
                           in.v.block_table = v.block_table;
                       }});
}

TEST_P(VariedMetalAttention, MasksOfAllTypes) {
    const AttentionCase& c = GetParam();
    const size_t n = static_cast<size_t>(c.n_stream * c.n_tokens * c.n_kv);
    Random random(5);
    std::vector<uint8_t> seen(n);
    std::vector<float> bias(n);
    std::vector<uint16_t> brain(n), holes(n), halves(n), brain_halves(n);
    for (size_t i = 0; i < n; ++i) {
        seen[i] = random.below(3) > 0 && i / 64 % 5 != 1;
        bias[i] = seen[i] ? static_cast<float>(random.normal()) : -std::numeric_limits<float>::infinity();
        brain[i] = float_to_bfloat16(bias[i]);
        holes[i] = seen[i] ? 0 : kHalfMinusInfinity;
        halves[i] = float_to_half(bias[i]);
        brain_halves[i] = float_to_half(bfloat16_to_float(brain[i]));
    }
    struct Kind {
        int type;
        const void* mask;
        size_t bytes;
        const uint16_t* same;  // for the CPU
    };
    for (const Kind& kind :
         {Kind{kMaskBool, seen.data(), n, holes.data()}, Kind{kMaskF16, halves.data(), 2 * n, halves.data()},
          Kind{kMaskF32, bias.data(), 4 * n, halves.data()},
          Kind{kMaskBf16, brain.data(), 2 * n, brain_halves.data()}}) {
        MetalOptions options{[&](AttentionShape&, AttentionInputs& in) {
            in.mask = kind.same;
            in.mask_token_stride = sizeof(uint16_t) * static_cast<size_t>(c.n_kv);
            in.mask_stream_stride = in.mask_token_stride * static_cast<size_t>(c.n_tokens);
        }};
        options.mask_type = kind.type;
        options.arrays[kBufferMask] = {const_cast<void*>(kind.mask), kind.bytes};
        expect_bits_of_cpu(problem_, options);
    }
}

TEST_P(VariedMetalAttention, HalvesAndBfloatsInAndOut) {
    for (FloatType type : {FloatType::kF16, FloatType::kBf16}) {
        std::vector<uint16_t> q(problem_.q.size());
        from_floats(problem_.q.data(), static_cast<int64_t>(q.size()), type, q.data());
        std::vector<uint16_t> out_metal(problem_.empty_output().size(), 7), out_cpu = out_metal;
        const auto halve = [&](uint16_t* out) {
            return [&, out](AttentionShape&, AttentionInputs& in) {
                in.q = q.data();
                in.q_type = in.out_type = type;
                in.out = out;
                for (size_t* stride : {&in.q_token_stride, &in.q_head_stride, &in.q_stream_stride, &in.out_head_stride,
                                       &in.out_token_stride, &in.out_stream_stride})
                    *stride /= 2;
            };
        };
        MetalOptions options{halve(out_metal.data())};
        options.arrays[kBufferQuery] = {q.data(), 2 * q.size()};
        options.arrays[kBufferOut] = {out_metal.data(), 2 * out_metal.size()};
        run_on_metal(msl_library_metal_attention, problem_, options);
        problem_.run(Isa::kScalar, 1, AttentionProblem::run_in_order, halve(out_cpu.data()));
        expect_same_bits(out_metal, out_cpu);
    }
}

// Queries that are not finite, or tiny.
TEST_P(VariedMetalAttention, AnyQuery) {
    const float odd[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 0, 1e-42f,
                         3e38f};
    AttentionProblem problem(GetParam());
    for (int i = 0; i < 5; ++i) {
        std::span<float> q = problem.query(0, i % n_tokens_, i / n_tokens_ % GetParam().n_head());
        if (i < 2)
            q[3] = odd[i];
        else
            std::fill(q.begin(), q.end(), odd[i]);
    }
    expect_bits_of_cpu(problem);
}

TEST(MetalAttention, SaysWhyItTakesNotEverything) {
    MetalAttention call;
    call.shape = {64, 64, 4, 1, 1, 64};
    call.keys = make_format(Side::kKey, 4, 64);
    call.values = make_format(Side::kValue, 4, 64);
    EXPECT_EQ(metal_unsupported_reason(call), "");
    call.shape.max_bias = 8;
    EXPECT_NE(metal_unsupported_reason(call).find("ALiBi"), std::string::npos);
    call.shape.max_bias = 0;
    call.shape.head_dim_k = 72;
    EXPECT_NE(metal_unsupported_reason(call).find("head_dim 72"), std::string::npos);
    EXPECT_FALSE(plan_metal_attention(call).ok());
}

}  // namespace
}  // namespace tq::test
