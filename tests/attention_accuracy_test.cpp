// The accuracy bound of plan.h on many problems of random shapes, most of them made to come near it.
#include <array>

#include <gtest/gtest.h>

#include "tests/support/attention_problem.h"

namespace tq::test {
namespace {

template <class T, size_t n>
T pick(const std::array<T, n>& items, Random& random) {
    return items[static_cast<size_t>(random.below(n))];
}

Codes random_coding(bool key, Random& random) {
    const int bits = kMinBits + static_cast<int>(random.below(kMaxBits - kMinBits + 1));
    const bool trellis = bits >= kMinTrellisBits && bits <= kMaxTrellisBits && random.below(3) == 0;
    return Codes(bits, trellis, key && random.below(3) == 0);
}

AttentionCase random_case(Random& random) {
    constexpr std::array kHeadDims{16, 32, 48, 64, 80, 128};
    AttentionCase c;
    c.head_dim_k = pick(kHeadDims, random);
    c.head_dim_v = pick(kHeadDims, random);
    c.group_size = 1 + static_cast<int>(random.below(2));
    c.n_kv = 2 + random.below(random.below(2) ? 20 : 300);
    c.n_tokens = std::min(c.n_kv, 1 + random.below(2));
    c.keys = random_coding(true, random);
    c.values = random_coding(false, random);
    c.mask = static_cast<Mask>(random.below(6));
    c.sinks = random.below(4) == 0;
    c.query_size = pick(std::array{0.001f, 0.1f, 1.0f, 2.0f, 4.0f, 8.0f}, random);
    return c;
}

// A head's query with a few rotated components much larger than the others: what int8 keeps worst.
void make_query_uneven(AttentionProblem& problem, int64_t token, int head, Random& random) {
    const std::span<float> q = problem.query(0, token, head);
    const double size = problem.description().query_size;
    std::vector<float> rotated = random.normals(std::ssize(q), size * random.uniform());
    for (int i = 0; i < 2; ++i) {
        rotated[random.below(std::ssize(q))] = static_cast<float>(2 * size * std::sqrt(static_cast<double>(q.size())));
    }
    const RowCodec& keys = problem.keys().codec;
    keys.kernels().rotate_inverse(keys.rotation(0), rotated.data(), q.data());
}

// Pairs of opposite values, and keys of two opposite kinds.
void make_rows_opposite(AttentionProblem& problem, Random& random) {
    const std::vector<float> value = random.normals(problem.values().width()),
                             key = random.normals(problem.keys().width());
    for (int64_t cell = 0; cell < problem.description().n_kv; ++cell) {
        const float v_sign = random.below(2) ? 1.0f : -1.0f, k_sign = cell % 2 ? 1.0f : -1.0f;
        std::vector<float> v = value, k = random.normals(problem.keys().width(), 0.2);
        for (float& x : v) x *= v_sign;
        for (size_t i = 0; i < k.size(); ++i) k[i] += k_sign * key[i];
        problem.set_value(cell, v);
        problem.set_key(cell, k);
    }
}

// One cell of each block has nearly all weight, the others a fraction of a step of its weight.
void make_weights_small(AttentionProblem& problem, Random& random) {
    const auto low = static_cast<float>(-3 - 4 * random.uniform());
    for (size_t i = 0; i < problem.mask.size(); ++i) {
        const int64_t cell = static_cast<int64_t>(i) % problem.mask_token();
        if (problem.mask[i] != AttentionProblem::kMasked) problem.mask[i] = float_to_half(cell % 64 == 5 ? 0.0f : low);
    }
}

class AttentionBound : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Hundreds, AttentionBound, testing::Range(0, 5), testing::PrintToStringParamName());

TEST_P(AttentionBound, HoldsForRandomProblems) {
    for (int seed = 100 * GetParam(); seed < 100 * (GetParam() + 1); ++seed) {
        Random random(static_cast<uint64_t>(seed));
        AttentionProblem problem(random_case(random), static_cast<uint64_t>(seed));
        const AttentionCase& c = problem.description();
        if (random.below(2)) {
            for (int64_t token = 0; token < c.n_tokens; ++token) {
                for (int head = 0; head < c.n_head(); ++head) make_query_uneven(problem, token, head, random);
            }
        }
        if (random.below(2)) make_rows_opposite(problem, random);
        if (random.below(2)) make_weights_small(problem, random);
        const AccuracyBound bound(problem);
        const std::vector<float> reference = problem.reference(), out = problem.run();
        problem.for_rows(out, [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
            const double error = bound.error(row, problem.row(reference, stream, token, head), head);
            EXPECT_LE(error, bound.allowed(stream, token, head))
                << "seed " << seed << " token " << token << " head " << head;
        });
    }
}

}  // namespace
}  // namespace tq::test
