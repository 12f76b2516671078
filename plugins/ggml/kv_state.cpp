// This is what a host reads and writes of a packed tensor outside its graphs, in nominal rows: states that it saves and
// loads; and what a context shift does to blocks.
#include <algorithm>
#include <bit>
#include <cstring>

#include "kv_tensor.h"
#include "nominal.h"
#include "parallel.h"

namespace tq::plugin {
namespace {

constexpr int64_t kMinRowsPerThread = 2 * kBlockCells;  // fewer are done before a thread has started

// Each has scratch memory of its own, so that there must not be more than can run.
int64_t useful_threads(int64_t n_rows) {
    return std::clamp<int64_t>(n_rows / kMinRowsPerThread, 1, hardware_threads());
}

bool are_most_of(uint64_t cells, uint64_t all) {
    return 2 * std::popcount(cells) > std::popcount(all | cells);
}

}  // namespace

void KvTensor::decode_nominal(int64_t index, uint8_t* bytes) {
    thread_local std::vector<float> row;
    row.resize(format_.n_embd);
    decode_row(index, row.data());
    to_nominal(type_, row.data(), format_.n_embd, bytes);
}

// Rows of one block, to rows of n_embd floats: exact ones where there are some.
void KvTensor::load_rows(int64_t first, int64_t n, float* rows) {
    const int64_t cell = first % n_cells_;
    codec().decode_block(blocks_of_row(first), cell / kBlockCells, static_cast<int>(cell % kBlockCells),
                         static_cast<int>(n), rows);
    for (int64_t i = 0; exact_ && i < n; ++i) {
        if (const uint16_t* exact = exact_->find(first + i))
            halves_to_floats(exact, format_.n_embd, rows + i * format_.n_embd);
    }
}

void KvTensor::round_to_state(float* row) const {
    if (!exact_) return;
    constexpr int64_t kPiece = 256;
    uint16_t halves[kPiece];
    for (int64_t begin = 0; begin < format_.n_embd; begin += kPiece) {
        const int64_t n = std::min(kPiece, format_.n_embd - begin);
        float* piece = row + begin;
        for (int64_t i = 0; type_ == GGML_TYPE_BF16 && i < n; ++i)
            piece[i] = bfloat16_to_float(float_to_bfloat16(piece[i]));
        ExactRows::convert(piece, n, halves);
        halves_to_floats(halves, n, piece);
    }
}

KvTensor::RowRange KvTensor::rows_in_block(int64_t block, int64_t begin, int64_t end) const {
    const int64_t first = first_row_of_block(block);
    return {std::max(begin, first), std::min(end, first + rows_of_block(block))};
}

// ---- context shifts

void KvTensor::load_block(int64_t block, float* rows) {
    load_rows(first_row_of_block(block), rows_of_block(block), rows);
}

void KvTensor::store_block(float* rows, int64_t block, uint64_t cells) {
    const int64_t first = first_row_of_block(block), stream = block / n_blocks();
    for (uint64_t left = cells; left != 0; left &= left - 1) {
        const int64_t i = std::countr_zero(left);
        float* row = rows + i * format_.n_embd;
        round_to_state(row);
        if (uint16_t* exact = exact_ ? exact_->find(first + i) : nullptr)
            ExactRows::convert(row, format_.n_embd, exact);
    }
    if (are_most_of(cells, codec().cells_in_use(blocks_of_stream(stream).at(block % n_blocks())))) {
        return codec().encode_block(rows, cells, blocks_of_stream(stream), block % n_blocks());
    }
    for (uint64_t left = cells; left != 0; left &= left - 1) {
        const int64_t i = std::countr_zero(left);
        encode_row(rows + i * format_.n_embd, first + i);
    }
}

// ---- states

template <class Rows, class Part>
void KvTensor::for_rows_and_parts(size_t offset, size_t size, Rows rows, Part part) const {
    for (size_t done = 0; done < size;) {
        const int64_t index = static_cast<int64_t>((offset + done) / row_bytes_);
        const size_t begin = (offset + done) % row_bytes_, left = size - done, whole = left / row_bytes_ * row_bytes_;
        if (begin == 0 && whole > 0) {
            rows(index, static_cast<int64_t>(whole / row_bytes_), done);
            done += whole;
        } else {
            const size_t n = std::min(left, row_bytes_ - begin);
            part(index, begin, n, done);
            done += n;
        }
    }
}

void KvTensor::read(void* bytes, size_t offset, size_t size) {
    codec();  // made here, before threads share it
    uint8_t* out = static_cast<uint8_t*>(bytes);
    for_rows_and_parts(
        offset, size, [&](int64_t first, int64_t n, size_t done) { read_rows(out + done, first, n); },
        [&](int64_t index, size_t begin, size_t n, size_t done) {
            std::vector<uint8_t> row(row_bytes_);
            read_rows(row.data(), index, 1);
            std::memcpy(out + done, row.data() + begin, n);
        });
}

void KvTensor::read_rows(uint8_t* bytes, int64_t first, int64_t n) {
    const int64_t first_block = block_of_row(first), last_block = block_of_row(first + n - 1);
    const int64_t n_threads = useful_threads(n);
    std::vector<float> scratch(n_threads * kBlockCells * format_.n_embd);
    parallel_for(last_block - first_block + 1, n_threads, [&](int64_t item, int64_t thread) {
        float* rows = scratch.data() + thread * kBlockCells * format_.n_embd;
        const auto [begin, end] = rows_in_block(first_block + item, first, first + n);
        load_rows(begin, end - begin, rows);
        to_nominal(type_, rows, (end - begin) * format_.n_embd, bytes + (begin - first) * row_bytes_);
    });
}

void KvTensor::write(const void* bytes, size_t offset, size_t size) {
    const uint8_t* in = static_cast<const uint8_t*>(bytes);
    for_rows_and_parts(
        offset, size, [&](int64_t first, int64_t n, size_t done) { write_rows(in + done, first, n); },
        [&](int64_t index, size_t begin, size_t n, size_t done) { update_part(index, begin, n, in + done); });
}

void KvTensor::fill(uint8_t value, size_t offset, size_t size) {
    const std::vector<uint8_t> row(row_bytes_, value);
    while (size > 0) {
        const size_t n = std::min(size, row_bytes_ - offset % row_bytes_);
        write(row.data(), offset, n);
        offset += n, size -= n;
    }
}

// A part of a row is stored with what the row's codes hold beside it; then the row is no longer what came.
void KvTensor::update_part(int64_t index, size_t begin, size_t size, const uint8_t* bytes) {
    std::vector<uint8_t> row(row_bytes_);
    decode_nominal(index, row.data());
    std::memcpy(row.data() + begin, bytes, size);
    from_nominal(type_, row.data(), format_.n_embd, row_.data());
    encode_row(row_.data(), index);
    if (exact_) exact_->forget(index, 1);
}

// Slices are independent of each other. Blocks are too, but not those of centered keys, nor two that share a block.
void KvTensor::write_rows(const uint8_t* bytes, int64_t first, int64_t n) {
    const int n_slices = codec().n_slices();
    const int64_t first_block = block_of_row(first),
                  n_written = format_.centered() ? 1 : block_of_row(first + n - 1) - first_block + 1;
    const int64_t n_threads = useful_threads(n);
    std::vector<float> scratch(n_threads * format_.n_embd);
    parallel_for(n_written * n_slices, n_threads, [&](int64_t item, int64_t thread) {
        float* row = scratch.data() + thread * format_.n_embd;
        const int slice = static_cast<int>(item % n_slices);
        if (format_.centered()) return write_slice(bytes, first, n, slice, row);
        const auto [begin, end] = rows_in_block(first_block + item / n_slices, first, first + n);
        write_slice(bytes + (begin - first) * row_bytes_, begin, end - begin, slice, row);
    });
    if (exact_) adopt_exact(bytes, first, n);
}

// row: n_embd floats to work in.
void KvTensor::write_slice(const uint8_t* bytes, int64_t first, int64_t n, int slice, float* row) {
    const auto [begin, width] = codec_->slice_at(slice);
    for (int64_t i = 0; i < n; ++i) {
        from_nominal(type_, bytes + i * row_bytes_ + static_cast<size_t>(begin) * ggml_type_size(type_), width,
                     row + begin);
        encode_slice(row, first + i, slice);
    }
}

// The rows come in the order of their cells, so that the last ones are the window.
void KvTensor::adopt_exact(const uint8_t* bytes, int64_t first, int64_t n) {
    const int64_t n_kept = exact_->cells().n_kept();
    exact_->forget(first, n);
    for (int64_t i = 0; i < n; ++i) {
        const bool sink = (first + i) % n_cells_ < exact_->cells().n_sink;
        if (!sink && i < n - n_kept) continue;
        uint16_t* slot = exact_->adopt(first + i);
        if (!slot) continue;
        from_nominal(type_, bytes + i * row_bytes_, format_.n_embd, row_.data());
        ExactRows::convert(row_.data(), format_.n_embd, slot);
    }
}

}  // namespace tq::plugin
