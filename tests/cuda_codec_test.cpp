// The codec on a device: the CPU's codes and scales, and the CPU's rows back, bit for bit.
#include "tests/support/device_arrays.h"
#include "tests/support/packed_rows.h"
#include "tests/support/rows.h"
#include "turboquant/base/half.h"
#include "turboquant/cpu/codec/plain_records.h"
#include "turboquant/cuda/codec.h"
#include "turboquant/cuda/plain_records.h"

namespace tq::test {
namespace {

constexpr int64_t kCells = 200, kStreams = 2;

// Rows of all kinds, [stream][token][n_embd].
std::vector<float> rows_of_all_kinds(const RowCodec& codec, int64_t n) {
    Random random(7);
    std::vector<float> rows;
    for (int64_t i = 0; i < n; ++i) {
        const RowKind kind = kRowKinds[i % std::size(kRowKinds)];
        for (int64_t dim = 0; dim < codec.format().n_embd; dim += codec.head_dim()) {
            const std::vector<float> head = make_row(kind, codec.rotation(0), codec.head_dim(), random);
            rows.insert(rows.end(), head.begin(), head.end());
        }
    }
    rows[3] = std::numeric_limits<float>::quiet_NaN();
    rows[5] = -std::numeric_limits<float>::infinity();
    rows[6] = 1e-20f;
    return rows;
}

// The same tensor on both sides.
class Tensors {
  public:
    Tensors(const PackedShape& shape, const std::vector<float>& scales = {})
        : cpu(shape, available_isas().back(), scales),
          codec(std::move(cuda::Codec::create(cpu.codec.format(), shape.head_dim, scales).value())),
          records(cpu.bytes.size()) {}

    cuda::DeviceRecords tensor() const { return {records.data(), blocks_of_cells(cpu.n_cells), nullptr}; }
    static cuda::DeviceRows rows(void* data, int64_t n_embd, int64_t n_tokens, int64_t first_cell) {
        cuda::DeviceRows r;
        r.rows = data;
        r.token_stride = sizeof(float) * n_embd;
        r.stream_stride = r.token_stride * n_tokens;
        r.n_tokens = n_tokens;
        r.n_stream = kStreams;
        r.first_cell = first_cell;
        return r;
    }
    void encode_on_cpu(const std::vector<float>& rows, int64_t n_tokens, int64_t first_cell) {
        for (int64_t stream = 0; stream < kStreams; ++stream)
            for (int64_t token = 0; token < n_tokens; ++token)
                cpu.codec.encode(&rows[(stream * n_tokens + token) * cpu.width()], cpu.blocks(stream),
                                 first_cell + token);
    }
    // The CPU's records in the GPU's order.
    Bytes expected() const {
        const RowFormat& format = cpu.codec.format();
        Bytes all(cpu.bytes.size());
        for (size_t at = 0; at < all.size(); at += format.block_bytes())
            cuda::pack_record(format, cpu.codec.head_dim(), unpack_record(format, &cpu.bytes[at]), &all[at]);
        return all;
    }

    PackedRows cpu;
    cuda::Codec codec;
    DeviceArray<uint8_t> records;
};

// Where two arrays of records differ, for messages.
testing::AssertionResult same_records(const Bytes& a, const Bytes& b) {
    if (a == b) return testing::AssertionSuccess();
    size_t n = 0, first = a.size();
    for (size_t i = 0; i < a.size(); ++i) {
        if (a[i] == b[i]) continue;
        first = std::min(first, i);
        ++n;
    }
    return testing::AssertionFailure() << n << " of " << a.size() << " bytes differ, the first is " << first;
}

class CudaCodec : public WithDevice<testing::TestWithParam<std::tuple<Side, int, int>>> {
  protected:
    PackedShape shape() const {
        const auto [side, bits, head_dim] = GetParam();
        return {side, bits, head_dim, 3, kCells, kStreams};
    }
};
INSTANTIATE_TEST_SUITE_P(Formats, CudaCodec,
                         testing::Combine(testing::Values(Side::kKey, Side::kValue),
                                          testing::Range(kMinBits, kMaxBits + 1),
                                          testing::Values(64, 80, 96, 112, 128, 256)));

// A first call that begins and ends inside of blocks, and then one token more.
TEST_P(CudaCodec, EncodesToTheCpusCodes) {
    Tensors t(shape());
    const int64_t n_embd = t.cpu.width(), n = 150, first = 5;
    const std::vector<float> rows = rows_of_all_kinds(t.cpu.codec, kStreams * n),
                             more = rows_of_all_kinds(t.cpu.codec, kStreams);
    const DeviceArray<float> on_device(rows), more_on_device(more);
    ASSERT_TRUE(t.codec.encode(Tensors::rows(on_device.data(), n_embd, n, first), t.tensor(), nullptr).ok());
    ASSERT_TRUE(t.codec.encode(Tensors::rows(more_on_device.data(), n_embd, 1, first + n), t.tensor(), nullptr).ok());
    t.encode_on_cpu(rows, n, first);
    t.encode_on_cpu(more, 1, first + n);
    EXPECT_TRUE(same_records(t.records.values(), t.expected()));
}

TEST_P(CudaCodec, DecodesToTheCpusRows) {
    Tensors t(shape());
    const int64_t n_embd = t.cpu.width(), n = 130, first = 3;
    t.encode_on_cpu(rows_of_all_kinds(t.cpu.codec, kStreams * kCells), kCells, 0);
    const DeviceArray<uint8_t> records(t.expected());
    const cuda::DeviceRecords from{records.data(), blocks_of_cells(kCells), nullptr};
    for (bool rotated : {false, true}) {
        const DeviceArray<float> out(static_cast<size_t>(kStreams * n * n_embd), 0xee);
        ASSERT_TRUE(t.codec.decode(from, Tensors::rows(out.data(), n_embd, n, first), rotated, nullptr).ok());
        std::vector<float> expected;
        for (int64_t stream = 0; stream < kStreams; ++stream)
            for (int64_t cell = first; cell < first + n; ++cell) {
                std::vector<float> row(n_embd);
                if (rotated)
                    t.cpu.codec.decode_rotated(t.cpu.blocks(stream), cell, row.data());
                else
                    t.cpu.codec.decode(t.cpu.blocks(stream), cell, row.data());
                expected.insert(expected.end(), row.begin(), row.end());
            }
        EXPECT_TRUE(same_bits(out.values(), expected)) << (rotated ? "rotated" : "rotated back");
    }
}

TEST_P(CudaCodec, UnpacksAndPacksAsTheHostDoes) {
    Tensors t(shape());
    const RowFormat& format = t.cpu.codec.format();
    t.encode_on_cpu(rows_of_all_kinds(t.cpu.codec, kStreams * kCells), kCells, 0);
    const int64_t n_blocks = blocks_of_cells(kCells);
    const DeviceArray<uint8_t> records(t.expected());
    const DeviceArray<uint8_t> codes(static_cast<size_t>(n_blocks * kBlockCells * format.n_embd), 0xee),
        scales(static_cast<size_t>(n_blocks * kBlockCells * format.n_groups()), 0xee);
    ASSERT_TRUE(
        t.codec.unpack({records.data(), n_blocks, nullptr}, n_blocks, codes.data(), scales.data(), nullptr).ok());
    const Bytes all_codes = codes.values(), all_scales = scales.values();
    for (int64_t block = 0; block < n_blocks; ++block) {
        const PlainBlock plain = unpack_record(format, t.cpu.blocks(0).at(block));
        EXPECT_TRUE(
            std::equal(plain.codes.begin(), plain.codes.end(), all_codes.begin() + block * kBlockCells * format.n_embd))
            << block;
        EXPECT_TRUE(std::equal(plain.scales.begin(), plain.scales.end(),
                               all_scales.begin() + block * kBlockCells * format.n_groups()))
            << block;
    }
    ASSERT_TRUE(t.codec.pack(codes.data(), scales.data(), n_blocks, t.tensor(), nullptr).ok());
    Bytes expected = t.expected();
    expected.resize(static_cast<size_t>(n_blocks) * format.block_bytes());
    Bytes packed = t.records.values();
    packed.resize(expected.size());
    EXPECT_TRUE(same_records(packed, expected));
}

class CudaCodecOptions : public WithDevice<testing::Test> {};

TEST_F(CudaCodecOptions, ChannelScalesAreTheCpus) {
    for (const PackedShape& shape : {PackedShape{Side::kKey, 4, 80, 4, kCells, kStreams},
                                     PackedShape{Side::kValue, 3, 128, 2, kCells, kStreams}}) {
        Random random(3);
        Tensors t(shape, random_scales(shape.n_head * shape.head_dim, random));
        const std::vector<float> rows = rows_of_all_kinds(t.cpu.codec, kStreams * kCells);
        const DeviceArray<float> on_device(rows);
        ASSERT_TRUE(
            t.codec.encode(Tensors::rows(on_device.data(), t.cpu.width(), kCells, 0), t.tensor(), nullptr).ok());
        t.encode_on_cpu(rows, kCells, 0);
        EXPECT_TRUE(same_records(t.records.values(), t.expected()));
    }
}

TEST_F(CudaCodecOptions, RowsMayBeHalves) {
    Tensors t({Side::kKey, 4, 128, 2, kCells, kStreams});
    for (FloatType type : {FloatType::kF16, FloatType::kBf16}) {
        const std::vector<float> rows = rows_of_all_kinds(t.cpu.codec, kStreams * kCells);
        std::vector<uint16_t> halves(rows.size());
        std::vector<float> rounded(rows.size());
        from_floats(rows.data(), std::ssize(rows), type, halves.data());
        to_floats(halves.data(), type, std::ssize(rows), rounded.data());
        const DeviceArray<uint16_t> on_device(halves);
        cuda::DeviceRows r = Tensors::rows(on_device.data(), t.cpu.width(), kCells, 0);
        r.type = type;
        r.token_stride /= 2;
        r.stream_stride /= 2;
        ASSERT_TRUE(t.codec.encode(r, t.tensor(), nullptr).ok());
        t.encode_on_cpu(rounded, kCells, 0);
        EXPECT_TRUE(same_records(t.records.values(), t.expected()));

        const DeviceArray<uint16_t> back(rows.size());
        r.rows = back.data();
        ASSERT_TRUE(t.codec.decode(t.tensor(), r, false, nullptr).ok());
        std::vector<uint16_t> expected(rows.size());
        for (int64_t i = 0; i < kStreams * kCells; ++i) {
            const std::vector<float> row = t.cpu.decode(i % kCells, i / kCells);
            from_floats(row.data(), t.cpu.width(), type, &expected[i * t.cpu.width()]);
        }
        EXPECT_EQ(back.values(), expected);
    }
}

// Lengths on the device, and records in any order.
TEST_F(CudaCodecOptions, StreamsOfAnyLengthsGoWhereTheTableSays) {
    Tensors t({Side::kValue, 5, 96, 3, kCells, kStreams});
    const int64_t n_embd = t.cpu.width(), n = 100, n_blocks = blocks_of_cells(kCells);
    const std::vector<float> rows = rows_of_all_kinds(t.cpu.codec, kStreams * n);
    const DeviceArray<float> on_device(rows);
    const DeviceArray<int64_t> first_cells(std::vector<int64_t>{90, 0}), n_tokens(std::vector<int64_t>{100, 37});
    std::vector<int32_t> table(kStreams * n_blocks);
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(table.size() - 1 - i);
    const DeviceArray<int32_t> table_on_device(table);
    cuda::DeviceRows r = Tensors::rows(on_device.data(), n_embd, n, 0);
    r.first_cell_of_stream = first_cells.data();
    r.n_tokens_of_stream = n_tokens.data();
    ASSERT_TRUE(t.codec.encode(r, {t.records.data(), n_blocks, table_on_device.data()}, nullptr).ok());
    for (int64_t token = 0; token < 100; ++token)
        t.cpu.codec.encode(&rows[token * n_embd], t.cpu.blocks(0), 90 + token);
    for (int64_t token = 0; token < 37; ++token)
        t.cpu.codec.encode(&rows[(n + token) * n_embd], t.cpu.blocks(1), token);
    const Bytes expected = t.expected(), got = t.records.values();
    const size_t size = t.cpu.codec.format().block_bytes();
    for (size_t i = 0; i < table.size(); ++i) {
        const auto at = got.begin() + static_cast<ptrdiff_t>(table[i] * size);
        EXPECT_TRUE(
            std::equal(at, at + static_cast<ptrdiff_t>(size), expected.begin() + static_cast<ptrdiff_t>(i * size)))
            << i;
    }
}

TEST_F(CudaCodecOptions, ErrorsNameWhatIsWrong) {
    const Tensors t({Side::kKey, 4, 128, 2, kCells, kStreams});
    const auto message = [&](cuda::DeviceRows r) { return t.codec.encode(r, t.tensor(), nullptr).message(); };
    EXPECT_NE(message(Tensors::rows(nullptr, 256, 1, 0)).find("null"), std::string::npos);
    EXPECT_NE(message(Tensors::rows(t.records.data(), 256, 1, -1)).find("first_cell"), std::string::npos);
    EXPECT_NE(message(Tensors::rows(t.records.data(), 256, 300, 0)).find("cells up to 300"), std::string::npos);
    EXPECT_NE(cuda::Codec::create(make_format(Side::kKey, centered(4), 128), 128).status().message().find("centered"),
              std::string::npos);
}

}  // namespace
}  // namespace tq::test
