#include "turboquant/cuda/codec.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "turboquant/cache/block_codec.h"
#include "turboquant/cuda/codec_kernels.h"
#include "turboquant/cuda/plain_records.h"
#include "turboquant/format/codebook.h"

namespace tq::cuda {
namespace {

CodecTables tables_of(int bits) {
    const Codebook& book = codebook(bits);
    CodecTables tables{};
    std::copy(book.nearest.byte.begin(), book.nearest.byte.end(), tables.nearest);
    std::copy(book.code.byte.begin(), book.code.byte.end(), tables.code);
    std::copy(book.centroid.begin(), book.centroid.end(), tables.level);
    tables.sigma_units = book.sigma_units;
    return tables;
}

// [3][n_diagonal]
std::vector<float> diagonals_of(const std::vector<Rotation>& rotations) {
    std::vector<float> all;
    for (auto member : {&Rotation::first, &Rotation::first_inverse, &Rotation::second})
        for (const Rotation& rotation : rotations)
            all.insert(all.end(), (rotation.*member).begin(), (rotation.*member).end());
    return all;
}

Status check_rows(const DeviceRows& rows, const DeviceRecords& records) {
    if (!rows.rows || !records.records) return Status(Error::kInvalidArgument, "rows or records are null");
    if (rows.n_tokens < 0 || rows.n_stream <= 0 || rows.first_cell < 0) {
        return Status(Error::kInvalidArgument, "n_tokens is " + std::to_string(rows.n_tokens) + ", n_stream " +
                                                   std::to_string(rows.n_stream) + ", first_cell " +
                                                   std::to_string(rows.first_cell) + "; allowed: 0, 1, 0 and more");
    }
    const int64_t last_block = (rows.first_cell + rows.n_tokens + kBlockCells - 1) / kBlockCells;
    if (last_block > records.blocks_of_stream) {
        return Status(Error::kOutOfRange, "cells up to " + std::to_string(rows.first_cell + rows.n_tokens) +
                                              " of a stream of " + std::to_string(records.blocks_of_stream) +
                                              " blocks of 64");
    }
    return {};
}

}  // namespace

Result<Codec> Codec::create(const RowFormat& format, int head_dim, std::span<const float> channel_scales) {
    if (std::string reason = unsupported_reason(format, head_dim); !reason.empty())
        return Status(Error::kUnsupported, std::move(reason));
    if (format.centered()) return Status(Error::kUnsupported, "the CUDA engine has no centered keys yet");
    Result<std::vector<Rotation>> rotations = rotations_of_row(format, head_dim, channel_scales);
    if (!rotations.ok()) return rotations.status();
    const std::vector<float> diagonals = diagonals_of(rotations.value());
    const CodecTables tables = tables_of(format.bits);
    Codec codec;
    codec.format_ = format;
    codec.order_ = record_order(format, head_dim);
    codec.n_diagonal_ = static_cast<int>(diagonals.size() / 3);
    Result<DeviceMemory> on_device = DeviceMemory::copy_of(diagonals.data(), diagonals.size() * sizeof(float));
    if (!on_device.ok()) return on_device.status();
    codec.diagonals_ = std::move(on_device.value());
    on_device = DeviceMemory::copy_of(&tables, sizeof tables);
    if (!on_device.ok()) return on_device.status();
    codec.tables_ = std::move(on_device.value());
    return codec;
}

namespace {

RowsCall rows_call(const Codec& codec, const DeviceRows& rows, const DeviceRecords& records, bool rotated) {
    const int64_t slice = std::lcm(codec.head_dim(), group_dims(codec.format().side));
    return {codec.order(),
            records,
            rows,
            static_cast<int64_t>(codec.format().block_bytes()),
            static_cast<int>(std::min(slice, codec.format().n_embd)),
            codec.diagonals(),
            codec.n_diagonal(),
            codec.tables(),
            rotated};
}

}  // namespace

Status Codec::encode(const DeviceRows& rows, const DeviceRecords& to, cudaStream_t stream) const {
    if (Status s = check_rows(rows, to); !s.ok()) return s;
    return rows.n_tokens == 0 ? Status() : launch_encode(rows_call(*this, rows, to, false), stream);
}

Status Codec::decode(const DeviceRecords& from, const DeviceRows& rows, bool rotated, cudaStream_t stream) const {
    if (Status s = check_rows(rows, from); !s.ok()) return s;
    return rows.n_tokens == 0 ? Status() : launch_decode(rows_call(*this, rows, from, rotated), stream);
}

Status Codec::unpack(const DeviceRecords& from, int64_t n_blocks, uint8_t* codes, uint8_t* scales,
                     cudaStream_t stream) const {
    return launch_unpack({order_, from, static_cast<int64_t>(format_.block_bytes()), n_blocks, codes, scales}, stream);
}

Status Codec::pack(const uint8_t* codes, const uint8_t* scales, int64_t n_blocks, const DeviceRecords& to,
                   cudaStream_t stream) const {
    return launch_pack({order_, to, static_cast<int64_t>(format_.block_bytes()), n_blocks, const_cast<uint8_t*>(codes),
                        const_cast<uint8_t*>(scales)},
                       stream);
}

}  // namespace tq::cuda
