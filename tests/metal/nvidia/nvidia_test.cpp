// The shaders on an NVIDIA GPU have the bits of the CPU's kernels and bytes of its codec.
#include <cstring>

#include <gtest/gtest.h>

#include "cases.h"
#include "metal_attention.h"
#include "row_shapes.h"
#include "tests/support/vectors.h"

TQ_METAL_LIBRARY(metal_on_nvidia);

namespace tq::test {
namespace {

template <class T>
size_t count_different(const std::vector<T>& a, const std::vector<T>& b) {
    EXPECT_EQ(a.size(), b.size());
    size_t n = 0;
    for (size_t i = 0; i < a.size(); ++i) n += std::memcmp(&a[i], &b[i], sizeof(T)) != 0;
    return n;
}

class AttentionOnNvidia : public testing::TestWithParam<AttentionCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionOnNvidia, testing::ValuesIn(nvidia_attention_cases()));

TEST_P(AttentionOnNvidia, HasTheBitsOfTheCpu) {
    const AttentionProblem problem(GetParam());
    const std::vector<float> expected = problem.run(Isa::kScalar, 1, AttentionProblem::run_in_order);
    EXPECT_EQ(count_different(run_on_metal(msl_library_metal_on_nvidia, problem), expected), 0u);
    std::printf("  %zu floats compared\n", expected.size());
}

// Streams of other lengths, one without tokens.
TEST_P(AttentionOnNvidia, HasThemForRaggedBatches) {
    const AttentionProblem problem(GetParam());
    const std::vector<int64_t> n_kv = {GetParam().n_kv - 1, 65, 3}, n_tokens = {GetParam().n_tokens, 1, 0};
    const AttentionProblem::Change ragged = [&](AttentionShape&, AttentionInputs& in) {
        in.n_kv_of_stream = n_kv.data();
        in.n_tokens_of_stream = n_tokens.data();
    };
    const std::vector<float> expected = problem.run(Isa::kScalar, 1, AttentionProblem::run_in_order, ragged);
    EXPECT_EQ(count_different(run_on_metal(msl_library_metal_on_nvidia, problem, {ragged}), expected), 0u);
}

struct Span {
    int32_t first, n;
};

class RowsOnNvidia : public testing::TestWithParam<PackedShape> {
  protected:
    const PackedShape shape_{GetParam()};
    PackedRows cpu_{shape_, Isa::kScalar}, gpu_{shape_, Isa::kScalar};

    void run(const RowsLaunch& plan, const std::vector<float>& rows, const std::vector<Span>& spans) {
        const std::vector<float> rotation = metal_rotation({cpu_.codec.rotation(0)});
        MetalRun run(msl_library_metal_on_nvidia);
        run.give(kBufferParams, &plan.params, sizeof plan.params);
        run.give(kBufferLengths, spans);
        run.give(kBufferRows, rows);
        run.give(kBufferRecords, gpu_.bytes);
        run.give(kBufferRotation, rotation);
        run.launch(plan.launch);
    }
};
INSTANTIATE_TEST_SUITE_P(Shapes, RowsOnNvidia, testing::ValuesIn(nvidia_row_shapes()));

// A prompt, a token, and a prompt over block borders; then all rows back.
TEST_P(RowsOnNvidia, AppendAndDecodeAsTheCpu) {
    const int64_t width = cpu_.width(), floats = shape_.n_stream * shape_.n_cells * width;
    Random random{5};
    for (const std::vector<Span>& spans :
         {std::vector<Span>{{0, 61}, {0, 1}}, {{61, 1}, {1, 1}}, {{62, 70}, {2, 123}}}) {
        const std::vector<float> rows = random.normals(floats);
        for (int64_t stream = 0; stream < shape_.n_stream; ++stream)
            for (int32_t i = 0; i < spans[stream].n; ++i)
                cpu_.codec.encode(&rows[(stream * shape_.n_cells + i) * width], cpu_.blocks(stream),
                                  spans[stream].first + i);
        run(plan_metal_append(metal_rows(shape_)).value(), rows, spans);
        EXPECT_EQ(count_different(gpu_.bytes, cpu_.bytes), 0u);
    }
    std::vector<float> expected(floats, 7.0f), rows = expected;
    for (int64_t stream = 0; stream < shape_.n_stream; ++stream)
        for (int32_t i = 0; i < 125; ++i) {
            const std::vector<float> row = cpu_.decode(i, stream);
            std::copy(row.begin(), row.end(), &expected[(stream * shape_.n_cells + i) * width]);
        }
    run(plan_metal_decode(metal_rows(shape_)).value(), rows, {{0, 125}, {0, 125}});
    EXPECT_EQ(count_different(rows, expected), 0u);
    std::printf("  %zu bytes of records and %zu floats compared\n", cpu_.bytes.size(), expected.size());
}

}  // namespace
}  // namespace tq::test
