// Rows into records and out of them by the shaders, lane by lane: byte for byte what the CPU's codec makes of them.
#include <gtest/gtest.h>

#include <cstring>

#include "metal_run.h"
#include "row_shapes.h"
#include "tests/support/rows.h"
#include "tests/support/vectors.h"

TQ_METAL_LIBRARY(metal_shaders);

namespace tq::test {
namespace {

struct Span {
    int32_t first, n;
};

class MetalRowsTest : public testing::TestWithParam<PackedShape> {
  protected:
    const PackedShape shape_{GetParam()};
    PackedRows cpu_{shape_, Isa::kScalar}, metal_{shape_, Isa::kScalar};
    Random random_{3};

    // All kinds of rows, [stream][cell][n_embd].
    std::vector<float> make_rows() {
        std::vector<float> rows;
        for (int64_t i = 0; i < shape_.n_stream * shape_.n_cells; ++i) {
            const std::vector<float> row =
                make_row(static_cast<RowKind>(random_.below(static_cast<int>(RowKind::kSpikeAfterRotation) + 1)),
                         cpu_.codec.rotation(0), cpu_.width(), random_);
            rows.insert(rows.end(), row.begin(), row.end());
        }
        return rows;
    }

    // The first rows go to cells spans[stream].first and so on.
    void append_on_cpu(const std::vector<float>& rows, const std::vector<Span>& spans) {
        for (int64_t stream = 0; stream < shape_.n_stream; ++stream)
            for (int32_t i = 0; i < spans[stream].n; ++i)
                cpu_.codec.encode(&rows[(stream * shape_.n_cells + i) * cpu_.width()], cpu_.blocks(stream), spans[stream].first + i);
    }
    void append_on_metal(const void* rows, size_t bytes, const std::vector<Span>& spans, FloatType type = FloatType::kF32) {
        MetalRows call = metal_rows(shape_);
        call.type = type;
        const RowsLaunch plan = plan_metal_append(call).value();
        run(plan, rows, bytes, spans);
    }
    void run(const RowsLaunch& plan, const void* rows, size_t bytes, const std::vector<Span>& spans) {
        const std::vector<float> rotation = metal_rotation({cpu_.codec.rotation(0)});
        MetalRun run(msl_library_metal_shaders);
        run.give(kBufferParams, &plan.params, sizeof plan.params);
        run.give(kBufferLengths, spans);
        run.give(kBufferRows, rows, bytes);
        run.give(kBufferRecords, metal_.bytes);
        run.give(kBufferRotation, rotation);
        run.launch(plan.launch);
    }
    void append(const std::vector<float>& rows, const std::vector<Span>& spans) {
        append_on_cpu(rows, spans);
        append_on_metal(rows.data(), sizeof(float) * rows.size(), spans);
        expect_same_records();
    }
    void expect_same_records() {
        ASSERT_EQ(metal_.bytes.size(), cpu_.bytes.size());
        size_t different = 0, first = 0;
        for (size_t i = 0; i < cpu_.bytes.size(); ++i) {
            if (metal_.bytes[i] == cpu_.bytes[i]) continue;
            if (different++ == 0) first = i;
        }
        EXPECT_EQ(different, 0u) << "bytes of " << cpu_.bytes.size() << ", first at " << first;
    }
};
INSTANTIATE_TEST_SUITE_P(Shapes, MetalRowsTest, testing::ValuesIn(metal_row_shapes()));

// A prompt, single tokens across a block border, a prompt again; then cells that are written anew.
TEST_P(MetalRowsTest, RecordsAreThoseOfTheCpu) {
    append(make_rows(), {{0, 61}, {0, 1}});
    for (int32_t i = 0; i < 5; ++i) append(make_rows(), {{61 + i, 1}, {1 + i, 1}});
    append(make_rows(), {{66, 70}, {6, 123}});
    append(make_rows(), {{60, 6}, {64, 3}});
    append(make_rows(), {{2, 3}, {130, 0}});
}

}  // namespace
}  // namespace tq::test
