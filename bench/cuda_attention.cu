// Decode attention of the CUDA engine: `tq_cuda_bench [--quick | --one PRESET SEQUENCES CELLS]` prints a JSON object, times
// in microseconds.
//
// Each shape is timed in a CUDA graph of launches back to back and singly, over several caches in turn so that none of it
// is in L2; medians. Rotation of queries and outputs, the causal mask and a shuffled block table are included.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "turboquant/cuda/attention.h"

namespace {

using namespace tq;

constexpr size_t kBeyondL2 = size_t{512} << 20;  // bytes of all caches together, at least

void check(cudaError_t error) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
    std::exit(1);
}
void check(const Status& status) {
    if (status.ok()) return;
    std::fprintf(stderr, "%s\n", status.message().c_str());
    std::exit(1);
}
template <class T>
T made(Result<T> result) {
    check(result.status());
    return std::move(result.value());
}

struct Shape {
    int head_dim, n_head, n_head_kv;
    int64_t n_stream, n_kv, n_tokens;
    const char* preset;  // k<bits>v<bits>
    bool batch_invariant = false;
};

// Codes of any kind; scales of a plausible size, since what is far too large or 0 may take another time.
__global__ void fill_records(uint8_t* records, int64_t n_records, int64_t block_bytes, cuda::RecordOrder order) {
    const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= n_records * block_bytes) return;
    uint32_t h = static_cast<uint32_t>(i) * 2654435761u;
    h = (h ^ (h >> 15)) * 0x85ebca6bu;
    h ^= h >> 13;
    const int64_t at = i % block_bytes;
    const int64_t in_head = order.whole_groups() ? at % order.head_stride() : at;
    const int64_t codes = order.whole_groups() ? order.head_codes_bytes() : order.scales_offset(0);
    records[i] = static_cast<uint8_t>(in_head < codes ? h : 0x80 + h % 12);
}

__global__ void fill_floats(float* x, int64_t n, float scale) {
    const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < n) x[i] = scale * __sinf(static_cast<float>(i * 7919 % 10007));
}

__global__ void __launch_bounds__(512) read_all(const uint4* data, int64_t n, uint32_t* sink) {
    uint32_t sum = 0;
    const int64_t stride = int64_t{gridDim.x} * blockDim.x;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i + 3 * stride < n; i += 4 * stride) {
        const uint4 a = data[i], b = data[i + stride], c = data[i + 2 * stride], d = data[i + 3 * stride];
        sum += a.x ^ b.y ^ c.z ^ d.w;
    }
    if (sum == 0x12345678) *sink = sum;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

class Timer {
  public:
    Timer() {
        check(cudaEventCreate(&begin_));
        check(cudaEventCreate(&end_));
    }
    template <class Fn>
    double microseconds(cudaStream_t stream, Fn fn) {
        check(cudaEventRecord(begin_, stream));
        fn();
        check(cudaEventRecord(end_, stream));
        check(cudaEventSynchronize(end_));
        float ms = 0;
        check(cudaEventElapsedTime(&ms, begin_, end_));
        return 1000.0 * ms;
    }

  private:
    cudaEvent_t begin_, end_;
};

struct Times {
    double graph, single;
};

// launch(i): the i'th launch, of cache i modulo their number.
template <class Launch>
Times time_launches(cudaStream_t stream, int n_launches, Launch launch) {
    Timer timer;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    for (int i = 0; i < 3; ++i) launch(i);
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < n_launches; ++i) launch(i);
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&exec, graph, 0));
    check(cudaGraphLaunch(exec, stream));
    std::vector<double> graphs, singles;
    for (int i = 0; i < 9; ++i)
        graphs.push_back(timer.microseconds(stream, [&] { check(cudaGraphLaunch(exec, stream)); }) / n_launches);
    for (int i = 0; i < 21; ++i) singles.push_back(timer.microseconds(stream, [&] { launch(i); }));
    check(cudaGraphExecDestroy(exec));
    check(cudaGraphDestroy(graph));
    return {median(graphs), median(singles)};
}

class Problem {
  public:
    Problem(const Shape& s, cudaStream_t stream)
        : shape_(s),
          keys_(codec(tq::Side::kKey, s.preset[1] - '0')),
          values_(codec(tq::Side::kValue, s.preset[3] - '0')),
          plan_(made(cuda::AttentionPlan::create(attention_shape(), keys_, values_, {s.batch_invariant}))),
          n_blocks_((s.n_kv + kBlockCells - 1) / kBlockCells),
          stream_(stream) {
        const auto n_caches = static_cast<int>(std::clamp<size_t>(kBeyondL2 / cache_bytes() + 1, 2, 64));
        for (int i = 0; i < n_caches; ++i) {
            key_records_.push_back(records(keys_));
            value_records_.push_back(records(values_));
        }
        std::vector<int32_t> table(s.n_stream * n_blocks_);
        std::iota(table.begin(), table.end(), 0);
        std::shuffle(table.begin(), table.end(), std::mt19937(1));
        table_ = made(cuda::DeviceMemory::copy_of(table.data(), table.size() * sizeof(int32_t)));
        const int64_t n_floats = s.n_stream * s.n_tokens * s.n_head * s.head_dim;
        q_ = made(cuda::DeviceMemory::allocate(n_floats * sizeof(float)));
        out_ = made(cuda::DeviceMemory::allocate(n_floats * sizeof(float)));
        fill_floats<<<static_cast<unsigned>((n_floats + 255) / 256), 256, 0, stream>>>(q_.data<float>(), n_floats, 1);
        workspace_ = made(cuda::DeviceMemory::allocate(plan_.workspace_bytes()));
        check(plan_.initialize(workspace_.data(), stream));
    }

    // Bytes of codes and scales that one call reads.
    size_t cache_bytes() const {
        return static_cast<size_t>(shape_.n_stream * n_blocks_) *
               (keys_.format().block_bytes() + values_.format().block_bytes());
    }

    void launch(int i) const {
        const size_t cache = static_cast<size_t>(i) % key_records_.size();
        cuda::AttentionInputs in;
        in.q = q_.data();
        in.out = out_.data();
        in.q_head_stride = in.out_head_stride = sizeof(float) * shape_.head_dim;
        in.q_token_stride = in.out_token_stride = in.q_head_stride * shape_.n_head;
        in.q_stream_stride = in.out_stream_stride = in.q_token_stride * shape_.n_tokens;
        in.k = {key_records_[cache].data<uint8_t>(), n_blocks_, table_.data<int32_t>()};
        in.v = {value_records_[cache].data<uint8_t>(), n_blocks_, table_.data<int32_t>()};
        check(plan_.run(in, workspace_.data(), stream_));
    }
    Times times() const {
        const int n = static_cast<int>(std::max<size_t>(key_records_.size(), 8));
        return time_launches(stream_, n, [&](int i) { launch(i); });
    }

  private:
    AttentionShape attention_shape() const {
        AttentionShape s;
        s.head_dim_k = s.head_dim_v = shape_.head_dim;
        s.n_head = shape_.n_head;
        s.n_head_kv = shape_.n_head_kv;
        s.n_tokens = shape_.n_tokens;
        s.n_kv = shape_.n_kv;
        s.n_stream = shape_.n_stream;
        s.scale = 1 / std::sqrt(static_cast<float>(shape_.head_dim));
        s.causal = true;
        return s;
    }
    cuda::Codec codec(tq::Side side, int bits) const {
        return made(cuda::Codec::create(
            made(RowFormat::create(side, bits, int64_t{shape_.n_head_kv} * shape_.head_dim)), shape_.head_dim));
    }
    cuda::DeviceMemory records(const cuda::Codec& codec) const {
        const auto block_bytes = static_cast<int64_t>(codec.format().block_bytes());
        const int64_t n = shape_.n_stream * n_blocks_, bytes = n * block_bytes;
        cuda::DeviceMemory memory = made(cuda::DeviceMemory::allocate(static_cast<size_t>(bytes)));
        fill_records<<<static_cast<unsigned>((bytes + 255) / 256), 256, 0, stream_>>>(memory.data<uint8_t>(), n,
                                                                                      block_bytes, codec.order());
        check(cudaGetLastError());
        return memory;
    }

    Shape shape_;
    cuda::Codec keys_, values_;
    cuda::AttentionPlan plan_;
    int64_t n_blocks_;
    cudaStream_t stream_;
    std::vector<cuda::DeviceMemory> key_records_, value_records_;
    cuda::DeviceMemory table_, q_, out_, workspace_;
};

double read_bandwidth(cudaStream_t stream) {
    const size_t bytes = size_t{4} << 30;
    const cuda::DeviceMemory data = made(cuda::DeviceMemory::allocate(bytes));
    check(cudaMemsetAsync(data.data(), 0x5a, bytes, stream));
    Timer timer;
    std::vector<double> times;
    for (int i = 0; i < 9; ++i) {
        times.push_back(timer.microseconds(stream, [&] {
            read_all<<<132 * 4, 512, 0, stream>>>(data.data<uint4>(), static_cast<int64_t>(bytes / 16),
                                                  data.data<uint32_t>());
        }));
    }
    return static_cast<double>(bytes) / median(times) * 1e6;
}

std::vector<Shape> shapes(bool quick) {
    std::vector<Shape> all;
    const std::pair<int64_t, int64_t> batches[] = {{1, 32768}, {1, 131072}, {8, 8192}, {8, 32768}, {32, 32768}};
    for (const char* preset : {"k4v4", "k3v3", "k2v2", "k5v5", "k8v8"})
        for (auto [n_stream, n_kv] : batches) all.push_back({128, 32, 8, n_stream, n_kv, 1, preset});
    for (auto [n_stream, n_kv] : batches) all.push_back({128, 32, 8, n_stream, n_kv, 1, "k4v4", true});
    if (quick) return all;
    for (auto [n_stream, n_kv] : batches) all.push_back({128, 64, 8, n_stream, n_kv, 1, "k4v4"});
    for (auto [n_stream, n_kv] : batches) all.push_back({128, 8, 8, n_stream, n_kv, 1, "k4v4"});
    for (int head_dim : {64, 80, 96, 112, 256})
        for (int64_t n_stream : {8, 32}) all.push_back({head_dim, 32, 8, n_stream, 32768, 1, "k4v4"});
    for (int64_t n_kv : {4096, 8192, 16384, 65536, 262144, 1048576}) all.push_back({128, 32, 8, 1, n_kv, 1, "k4v4"});
    for (int64_t n_kv : {256, 1024, 2048, 4096, 8192}) all.push_back({128, 32, 8, (1 << 20) / n_kv, n_kv, 1, "k4v4"});
    for (int64_t n_tokens : {2, 4, 8, 16}) all.push_back({128, 32, 8, 8, 32768, n_tokens, "k4v4"});
    return all;
}

}  // namespace

int main(int argc, char** argv) {
    const bool quick = argc > 1 && std::strcmp(argv[1], "--quick") == 0;
    check(cuda::device_status());
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, 0));
    cudaStream_t stream;
    check(cudaStreamCreate(&stream));
    std::printf("{\"device\": \"%s\", \"read_bytes_per_s\": %.4g, \"attention\": [\n", properties.name,
                read_bandwidth(stream));
    std::vector<Shape> all = shapes(quick);
    if (argc == 5 && std::strcmp(argv[1], "--one") == 0)
        all = {{128, 32, 8, std::atoll(argv[3]), std::atoll(argv[4]), 1, argv[2]}};
    for (size_t i = 0; i < all.size(); ++i) {
        const Shape& s = all[i];
        const Problem problem(s, stream);
        const Times times = problem.times();
        std::printf("  {\"preset\": \"%s\", \"head_dim\": %d, \"n_head\": %d, \"n_head_kv\": %d, \"n_stream\": %lld, "
                    "\"n_kv\": %lld, \"n_tokens\": %lld, \"batch_invariant\": %s, \"bytes\": %zu, \"graph_us\": %.2f, \"single_us\": %.2f}%s\n",
                    s.preset, s.head_dim, s.n_head, s.n_head_kv, static_cast<long long>(s.n_stream),
                    static_cast<long long>(s.n_kv), static_cast<long long>(s.n_tokens), s.batch_invariant ? "true" : "false", problem.cache_bytes(),
                    times.graph, times.single, i + 1 < all.size() ? "," : "");
        std::fflush(stdout);
    }
    std::printf("]}\n");
    return 0;
}
