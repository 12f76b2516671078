// Rows into records and out of them by the shaders, lane by lane: byte for byte what the CPU's codec makes of them.
#include "tests/support/rows.h"

#include <cstring>

#include <gtest/gtest.h>

#include "metal_run.h"
#include "row_shapes.h"
#include "tests/support/vectors.h"

TQ_METAL_LIBRARY(metal_rows);

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
                cpu_.codec.encode(&rows[(stream * shape_.n_cells + i) * cpu_.width()], cpu_.blocks(stream),
                                  spans[stream].first + i);
    }
    void append_on_metal(const void* rows, size_t bytes, const std::vector<Span>& spans,
                         FloatType type = FloatType::kF32) {
        MetalRows call = metal_rows(shape_);
        call.type = type;
        const RowsLaunch plan = plan_metal_append(call).value();
        run(plan, rows, bytes, spans);
    }
    void run(const RowsLaunch& plan, const void* rows, size_t bytes, const std::vector<Span>& spans) {
        const std::vector<float> rotation = metal_rotation({cpu_.codec.rotation(0)});
        MetalRun run(msl_library_metal_rows);
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

// Cells 0 and 1 nearly alike, so that the center of block 0 is the whole of cell 1.
TEST_P(MetalRowsTest, CentersOfBiasedRowsAreThoseOfTheCpu) {
    std::vector<float> rows = make_rows();
    const std::vector<float> bias = random_.normals(cpu_.width(), 30);
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = rows[i] / 100 + bias[i % bias.size()];
    append(rows, {{0, 70}, {0, 3}});
}

TEST_P(MetalRowsTest, TakesHalvesAndBfloats) {
    for (FloatType type : {FloatType::kF16, FloatType::kBf16}) {
        std::vector<float> rows = make_rows();
        std::vector<uint16_t> elements(rows.size());
        from_floats(rows.data(), static_cast<int64_t>(rows.size()), type, elements.data());
        to_floats(elements.data(), type, static_cast<int64_t>(rows.size()), rows.data());
        const std::vector<Span> spans = {{7, 5}, {64, 2}};
        append_on_cpu(rows, spans);
        append_on_metal(elements.data(), sizeof(uint16_t) * elements.size(), spans, type);
        expect_same_records();
    }
}

TEST_P(MetalRowsTest, DecodesAsTheCpu) {
    append_on_cpu(make_rows(), {{0, 140}, {0, 66}});
    metal_.bytes = cpu_.bytes;
    const std::vector<Span> spans = {{1, 139}, {60, 6}};
    for (FloatType type : {FloatType::kF32, FloatType::kF16, FloatType::kBf16}) {
        const size_t n = static_cast<size_t>(shape_.n_stream * shape_.n_cells * cpu_.width());
        std::vector<uint8_t> expected(n * bytes_of(type), 7), rows = expected;
        for (int64_t stream = 0; stream < shape_.n_stream; ++stream) {
            for (int32_t i = 0; i < spans[stream].n; ++i) {
                const std::vector<float> row = cpu_.decode(spans[stream].first + i, stream);
                from_floats(
                    row.data(), cpu_.width(), type,
                    &expected[(stream * shape_.n_cells + i) * cpu_.width() * static_cast<int64_t>(bytes_of(type))]);
            }
        }
        MetalRows call = metal_rows(shape_);
        call.type = type;
        call.n_rows = 140;
        run(plan_metal_decode(call).value(), rows.data(), rows.size(), spans);
        EXPECT_EQ(rows, expected);
    }
}

}  // namespace
}  // namespace tq::test
