// Attention on a device against attention_reference on the same cells, in double precision.
#include "tests/support/attention_problem.h"
#include "tests/support/attention_variants.h"
#include "tests/support/device_arrays.h"
#include "turboquant/cpu/codec/plain_records.h"
#include "turboquant/cuda/attend_call.h"
#include "turboquant/cuda/attention.h"
#include "turboquant/cuda/plain_records.h"

namespace tq::test {
namespace {

// 16 bits of queries and weights; ordinary rows are within a few 1e-5.
constexpr double kRelativeError = 3e-4;

using Change = std::function<void(AttentionShape&)>;

// A problem on the device.
class DeviceProblem {
  public:
    explicit DeviceProblem(const AttentionProblem& problem)
        : problem_(problem),
          keys_(std::move(cuda::Codec::create(problem.keys().codec.format(), problem.description().head_dim_k,
                                              scales_of(problem.keys().codec))
                              .value())),
          values_(std::move(cuda::Codec::create(problem.values().codec.format(), problem.description().head_dim_v,
                                                scales_of(problem.values().codec))
                                .value())),
          key_records_(records_of(problem.keys())),
          value_records_(records_of(problem.values())),
          q_(problem.q),
          sinks_(problem.sinks) {}

    cuda::AttentionInputs inputs() const {
        cuda::AttentionInputs in;
        std::vector<float> none;
        const AttentionInputs host = problem_.inputs(problem_.keys().codec, problem_.values().codec, none);
        in.q = q_.data();
        in.q_token_stride = host.q_token_stride;
        in.q_head_stride = host.q_head_stride;
        in.q_stream_stride = host.q_stream_stride;
        in.k = {key_records_.data(), blocks_of_cells(problem_.keys().n_cells), nullptr};
        in.v = {value_records_.data(), blocks_of_cells(problem_.values().n_cells), nullptr};
        in.sinks = problem_.description().sinks ? sinks_.data() : nullptr;
        in.out_head_stride = host.out_head_stride;
        in.out_token_stride = host.out_token_stride;
        in.out_stream_stride = host.out_stream_stride;
        return in;
    }

    // The strided output, gaps included.
    std::vector<float> run(const Change& change = {},
                           const std::function<void(cuda::AttentionInputs&)>& change_inputs = {}, int times = 1,
                           const cuda::AttentionOptions& options = {}) const {
        AttentionShape shape = problem_.shape();
        if (change) change(shape);
        Result<cuda::AttentionPlan> plan = cuda::AttentionPlan::create(shape, keys_, values_, options);
        std::vector<float> out = problem_.empty_output();
        if (!plan.ok()) {
            ADD_FAILURE() << plan.status().message();
            return out;
        }
        const DeviceArray<float> on_device(out);
        const DeviceArray<uint8_t> workspace(plan->workspace_bytes(), 0xff);
        cuda::AttentionInputs in = inputs();
        in.out = on_device.data();
        if (change_inputs) change_inputs(in);
        EXPECT_TRUE(plan->initialize(workspace.data(), nullptr).ok());
        for (int i = 0; i < times; ++i) {
            const Status status = plan->run(in, workspace.data(), nullptr);
            EXPECT_TRUE(status.ok()) << status.message();
        }
        return on_device.values();
    }

    const cuda::Codec& keys() const { return keys_; }
    const cuda::Codec& values() const { return values_; }
    const DeviceArray<uint8_t>& key_records() const { return key_records_; }

    static Bytes records_of(const PackedRows& packed) {
        const RowFormat& format = packed.codec.format();
        Bytes all(packed.bytes.size());
        for (size_t at = 0; at < all.size(); at += format.block_bytes())
            cuda::pack_record(format, packed.codec.head_dim(), unpack_record(format, &packed.bytes[at]), &all[at]);
        return all;
    }

  private:
    static std::vector<float> scales_of(const RowCodec& codec) {
        std::vector<float> scales;
        for (int head = 0; head * codec.head_dim() < codec.format().n_embd; ++head)
            for (float x : codec.rotation(head).first) scales.push_back(std::fabs(x));
        return scales;
    }
    const AttentionProblem& problem_;
    cuda::Codec keys_, values_;
    DeviceArray<uint8_t> key_records_, value_records_;
    DeviceArray<float> q_, sinks_;
};

std::vector<float> reference_of(const AttentionProblem& problem, const Change& change) {
    std::vector<float> out = problem.empty_output();
    AttentionShape shape = problem.shape();
    if (change) change(shape);
    attention_reference(shape, problem.inputs(problem.keys().codec, problem.values().codec, out));
    return out;
}

// The rows' largest error, as a part of what is allowed: kRelativeError of the row's norm, with channel scales, where
// large keys and queries meet, a hundredth of the CPU's bound (attention/plan.h). What lies between rows has to be
// untouched.
double largest_error(const AttentionProblem& problem, const std::vector<float>& out,
                     const std::vector<float>& reference) {
    const AccuracyBound bound(problem);
    double largest = 0;
    std::vector<float> gaps = out;
    problem.for_rows(out, [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
        const std::span<const float> expected = problem.row(reference, stream, token, head);
        const double allowed = problem.description().scaled ? bound.allowed(stream, token, head) / 100
                                                            : kRelativeError * (norm(expected) + 1e-30);
        const double part = bound.error(row, expected, head) / allowed;
        largest = std::isfinite(part) ? std::max(largest, part) : std::numeric_limits<double>::infinity();
        std::fill_n(gaps.begin() + (row.data() - out.data()), row.size(), AttentionProblem::kUntouched);
    });
    EXPECT_EQ(gaps, problem.empty_output());
    return largest;
}

struct DeviceCase {
    AttentionCase problem;
    bool causal = false;
    int64_t window = 0;
};
void PrintTo(const DeviceCase& c, std::ostream* out) {
    PrintTo(c.problem, out);
    *out << (c.causal ? " causal" : "") << " window " << c.window;
}

std::vector<DeviceCase> device_cases() {
    using M = Mask;
    std::vector<DeviceCase> cases;
    // Every kernel of the default build.
    for (int head_dim : {64, 80, 96, 112, 128, 256})
        for (int bits : {2, 3, 4, 5, 8}) cases.push_back({{head_dim, head_dim, 4, 3, 1, 1500, bits, bits}});
    const auto add = [&](const AttentionCase& c, bool causal = false, int64_t window = 0) {
        cases.push_back({c, causal, window});
    };
    add({128, 128, 4, 2, 1, 1, 4, 4});
    add({128, 128, 4, 2, 1, 63, 4, 4});
    add({128, 128, 1, 2, 1, 64, 4, 4});
    add({128, 128, 2, 2, 1, 65, 4, 4});
    add({128, 128, 8, 2, 1, 1024, 4, 4});
    add({128, 128, 7, 1, 1, 1025, 4, 4});
    add({128, 128, 16, 1, 2, 3000, 4, 4}, true);
    add({64, 64, 3, 3, 5, 2500, 4, 4}, true);
    add({64, 64, 3, 3, 5, 2500, 4, 4}, true, 1);
    add({64, 64, 3, 3, 5, 2500, 4, 4}, true, 100);
    add({128, 128, 4, 2, 17, 2100, 4, 4}, true, 1024);
    add({128, 128, 4, 1, 40, 20, 4, 4}, true);
    add({128, 128, 4, 1, 1, 5000, 4, 4, M::kNone, 1, 0, true});
    add({64, 64, 4, 2, 3, 1500, 4, 4, M::kNone, 2, 0, true, 20}, true);
    add({80, 80, 4, 5, 2, 1300, 4, 4, M::kNone, 3, 0, false, 0, 0, 1, true}, true);
    add({112, 112, 5, 3, 2, 700, 3, 3, M::kNone, 1, 0, false, 0, 0, 1, true}, true);
    for (float size : {0.0f, 0.001f, 0.15f, 3.0f, 9.0f})
        add({128, 128, 4, 1, 2, 4200, 4, 4, M::kNone, 1, 0, false, 0, 0, size});
    add({64, 64, 4, 1, 1, 70000, 4, 4});
    add({64, 64, 1, 4, 256, 9000, 3, 3}, true);  // thread blocks with several segments each
    return cases;
}

class CudaAttention : public WithDevice<testing::TestWithParam<DeviceCase>> {
  protected:
    Change change() const {
        return [c = GetParam()](AttentionShape& s) {
            s.causal = c.causal;
            s.window = c.window;
        };
    }
};
INSTANTIATE_TEST_SUITE_P(Cases, CudaAttention, testing::ValuesIn(device_cases()));

TEST_P(CudaAttention, AgreesWithTheReference) {
    const AttentionCase& c = GetParam().problem;
    if (!cuda::find_attend(c.head_dim_k, c.keys.bits, c.values.bits))
        GTEST_SKIP() << "this build has no kernel for it; it has " << cuda::attend_instances();
    const AttentionProblem problem(c);
    const DeviceProblem device(problem);
    const std::vector<float> out = device.run(change());
    EXPECT_LE(largest_error(problem, out, reference_of(problem, change())), 1);
    const std::vector<float> invariant = device.run(change(), {}, 1, {.batch_invariant = true});
    EXPECT_LE(largest_error(problem, invariant, reference_of(problem, change())), 1);
    // Another run, with a workspace that has been used.
    EXPECT_TRUE(same_bits(device.run(change(), {}, 3), out));
}

class CudaAttentionOptions : public WithDevice<testing::Test> {};

TEST_F(CudaAttentionOptions, RecordsInAnyOrderGiveTheSameBits) {
    const AttentionProblem problem({128, 128, 4, 2, 2, 3000, 4, 4, Mask::kNone, 3});
    const DeviceProblem device(problem);
    const size_t size = problem.keys().codec.format().block_bytes();
    const int64_t n = problem.keys().n_records(), per_stream = blocks_of_cells(problem.keys().n_cells);
    std::vector<int32_t> table(n);
    std::iota(table.begin(), table.end(), 0);
    Random random(5);
    shuffle(table, random);
    const Bytes plain = device.key_records().values();
    Bytes moved(plain.size());
    for (int64_t i = 0; i < n; ++i) std::memcpy(&moved[table[i] * size], &plain[i * size], size);
    const DeviceArray<uint8_t> records(moved);
    const DeviceArray<int32_t> on_device(table);
    EXPECT_TRUE(same_bits(device.run({},
                                     [&](cuda::AttentionInputs& in) {
                                         in.k = {records.data(), per_stream, on_device.data()};
                                     }),
                          device.run()));
}

// Streams of a ragged batch, and tokens of it, have the bits that they have alone; in tiles of four rows and of eight.
class CudaAttentionBatches : public WithDevice<testing::TestWithParam<int>> {};
INSTANTIATE_TEST_SUITE_P(GroupSizes, CudaAttentionBatches, testing::Values(4, 6));

TEST_P(CudaAttentionBatches, RowsDoNotDependOnTheBatch) {
    constexpr cuda::AttentionOptions kInvariant{.batch_invariant = true};
    AttentionCase c{128, 128, GetParam(), 2, 3, 5000, 4, 4, Mask::kNone, 3};
    const AttentionProblem problem(c);
    const DeviceProblem device(problem);
    const std::vector<int64_t> n_kv{5000, 70, 2200}, n_tokens{1, 3, 2};
    const DeviceArray<int64_t> kv_on_device(n_kv), tokens_on_device(n_tokens);
    const auto causal = [](AttentionShape& s) { s.causal = true; };
    const std::vector<float> batch = device.run(
        causal,
        [&](cuda::AttentionInputs& in) {
            in.n_kv_of_stream = kv_on_device.data();
            in.n_tokens_of_stream = tokens_on_device.data();
        },
        1, kInvariant);
    for (int64_t stream = 0; stream < 3; ++stream)
        for (int64_t token = 0; token < 3; ++token) {
            const int64_t cells = n_kv[stream] - n_tokens[stream] + token + 1;
            const std::vector<float> alone = device.run(
                [&](AttentionShape& s) {
                    s.n_stream = 1;
                    s.n_tokens = 1;
                    s.n_kv = std::max<int64_t>(1, cells);
                },
                [&](cuda::AttentionInputs& in) {
                    const size_t blocks = static_cast<size_t>(stream * in.k.blocks_of_stream);
                    in.q = static_cast<const char*>(in.q) + stream * in.q_stream_stride + token * in.q_token_stride;
                    in.k.records += blocks * problem.keys().codec.format().block_bytes();
                    in.v.records += blocks * problem.values().codec.format().block_bytes();
                },
                1, kInvariant);
            for (int head = 0; head < c.n_head(); ++head) {
                const std::span<const float> row = problem.row(batch, stream, token, head);
                if (token >= n_tokens[stream]) {
                    EXPECT_EQ(row[0], AttentionProblem::kUntouched);
                    continue;
                }
                EXPECT_TRUE(same_row(row, problem.row(alone, 0, 0, head))) << stream << " " << token << " " << head;
            }
        }
}

TEST_F(CudaAttentionOptions, StreamsWithoutCellsGiveZeros) {
    const AttentionProblem problem({128, 128, 2, 2, 2, 100, 4, 4, Mask::kNone, 2});
    const DeviceProblem device(problem);
    const DeviceArray<int64_t> n_kv(std::vector<int64_t>{0, 100});
    const std::vector<float> out = device.run([](AttentionShape& s) { s.causal = true; },
                                              [&](cuda::AttentionInputs& in) { in.n_kv_of_stream = n_kv.data(); });
    for (int64_t token = 0; token < 2; ++token)
        for (int head = 0; head < 4; ++head)
            for (float x : problem.row(out, 0, token, head)) EXPECT_EQ(x, 0.0f);
    EXPECT_NE(problem.row(out, 1, 0, 0)[0], AttentionProblem::kUntouched);
}

TEST_F(CudaAttentionOptions, QueriesAndOutputsMayBeHalves) {
    const AttentionProblem problem({128, 128, 4, 2, 2, 1500, 4, 4});
    const DeviceProblem device(problem);
    for (FloatType type : {FloatType::kF16, FloatType::kBf16}) {
        std::vector<uint16_t> halves(problem.q.size());
        std::vector<float> rounded(problem.q.size());
        from_floats(problem.q.data(), std::ssize(halves), type, halves.data());
        to_floats(halves.data(), type, std::ssize(halves), rounded.data());
        const DeviceArray<uint16_t> q(halves), out(problem.empty_output().size());
        const DeviceArray<float> q_floats(rounded);
        const std::vector<float> expected = device.run({}, [&](cuda::AttentionInputs& in) { in.q = q_floats.data(); });
        device.run({}, [&](cuda::AttentionInputs& in) {
            in.q = q.data();
            in.q_type = in.out_type = type;
            for (size_t* stride : {&in.q_token_stride, &in.q_head_stride, &in.q_stream_stride, &in.out_head_stride,
                                   &in.out_token_stride, &in.out_stream_stride})
                *stride /= 2;
            in.out = out.data();
        });
        const std::vector<uint16_t> got = out.values();
        problem.for_rows(expected, [&](int64_t stream, int64_t token, int head, std::span<const float> row) {
            std::vector<uint16_t> as_halves(row.size());
            from_floats(row.data(), std::ssize(row), type, as_halves.data());
            const auto at = got.begin() + (problem.row(expected, stream, token, head).data() - expected.data());
            EXPECT_TRUE(std::equal(as_halves.begin(), as_halves.end(), at)) << token << " " << head;
        });
    }
}

TEST_F(CudaAttentionOptions, LogarithmsOfSumsAreTheReferences) {
    const AttentionProblem problem({128, 128, 4, 2, 3, 2500, 4, 4, Mask::kNone, 2, 0, true});
    const DeviceProblem device(problem);
    LseRows expected(problem.description()), got(problem.description());
    const auto change = [](AttentionShape& s) { s.causal = true; };
    std::vector<float> out = problem.empty_output();
    AttentionShape shape = problem.shape();
    change(shape);
    AttentionInputs in = problem.inputs(problem.keys().codec, problem.values().codec, out);
    expected.ask(in);
    attention_reference(shape, in);
    const DeviceArray<float> on_device(got.values);
    device.run(change, [&](cuda::AttentionInputs& to) {
        got.ask(in);
        to.lse = on_device.data();
        to.lse_head_stride = in.lse_head_stride;
        to.lse_token_stride = in.lse_token_stride;
        to.lse_stream_stride = in.lse_stream_stride;
    });
    got.values = on_device.values();
    ASSERT_EQ(got.values.size(), expected.values.size());
    for (size_t i = 0; i < got.values.size(); ++i) EXPECT_NEAR(got.values[i], expected.values[i], 1e-4) << i;
}

TEST_F(CudaAttentionOptions, RunsInAGraphAndOnStreamsOfTheirOwn) {
    const AttentionProblem problem({128, 128, 4, 2, 1, 5000, 4, 4});
    const DeviceProblem device(problem);
    const std::vector<float> expected = device.run();
    const cuda::AttentionPlan plan =
        cuda::AttentionPlan::create(problem.shape(), device.keys(), device.values()).value();
    const DeviceArray<float> out(problem.empty_output());
    const DeviceArray<uint8_t> workspace(plan.workspace_bytes());
    cuda::AttentionInputs in = device.inputs();
    in.out = out.data();
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
    ASSERT_TRUE(plan.initialize(workspace.data(), stream).ok());
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    EXPECT_TRUE(plan.run(in, workspace.data(), stream).ok());
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_TRUE(same_bits(out.values(), expected));
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST_F(CudaAttentionOptions, ErrorsNameWhatIsMissing) {
    const AttentionProblem problem({128, 128, 4, 2, 1, 500, 4, 6});
    const DeviceProblem device(problem);
    const auto plan = cuda::AttentionPlan::create(problem.shape(), device.keys(), device.values());
    ASSERT_FALSE(plan.ok());
    EXPECT_NE(plan.status().message().find("k4v6"), std::string::npos) << plan.status().message();
    EXPECT_NE(plan.status().message().find("128: k"), std::string::npos) << plan.status().message();
}

}  // namespace
}  // namespace tq::test
