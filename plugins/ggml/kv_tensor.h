// A llama.cpp KV cache tensor that is stored packed. ggml sees its nominal type and strides (f16 rows of n_embd
// values); the nominal data pointers of it and of its views are addresses only and are never dereferenced.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <vector>

#include <ggml.h>

#include "config.h"
#include "turboquant/cache/exact_rows.h"
#include "turboquant/cache/packed_tensor.h"
#include "turboquant/cpu/codec/row_codec.h"

namespace tq::plugin {

// The tensor that a view (of a view ...) looks into.
const ggml_tensor* root_of(const ggml_tensor* tensor);

// Says whether a root tensor in one of our buffers is one that we pack, by name (cache_k_l<i>, cache_v_l<i>), shape and
// type; and which side. Only before memory is allocated does this decide: afterwards the buffer knows (kv_tensor_of).
std::optional<Side> kv_side(const ggml_tensor* root);

// llama.cpp names the tensors of all its caches so, and no weight.
inline bool has_cache_name(const ggml_tensor* root) {
    return std::memcmp(root->name, "cache_", 6) == 0;
}

class KvTensor {
  public:
    // data: allocated_bytes() bytes, zero-filled or not.
    KvTensor(const ggml_tensor* root, Side side, const Config& config, uint8_t* data);
    ~KvTensor() { ++generation_; }
    KvTensor(const KvTensor&) = delete;
    KvTensor& operator=(const KvTensor&) = delete;

    // As long as it stays the same, no KvTensor has come or gone, and each has kept the codec that it had.
    static uint64_t generation() { return generation_; }

    // Allocation size of the tensor, whatever its head_dim: codes, scales and exact rows.
    static size_t allocated_bytes(const ggml_tensor* root, Side side, const Config& config);

    // head_dim is learned from the graph. Where the codec can't take it, or as long as it is unknown, rows are rotated
    // in pieces of another width and attention takes the dense path. Rows already stored are encoded again.
    void set_head_dim(int head_dim);

    const RowCodec& codec();
    const RowFormat& format() const { return format_; }
    int64_t n_cells() const { return n_cells_; }  // of a stream
    size_t row_bytes() const { return row_bytes_; }
    int64_t n_rows() const { return n_cells_ * n_stream_; }
    PackedTensor packed() { return {&codec(), data_, n_stream_ * n_blocks(), n_cells_, n_stream_}; }
    ExactRows* exact() { return exact_ ? &*exact_ : nullptr; }  // null: none are kept

    // Rows are numbered over all streams.
    // rewritten: as of RowCodec::encode_slice.
    void encode_slice(const float* row, int64_t index, int slice, uint64_t rewritten = 0);
    void encode_row(const float* row, int64_t index);
    void decode_row(int64_t index, float* row);
    // A row in nominal form: row_bytes() bytes. Different threads may decode different rows.
    void decode_nominal(int64_t index, uint8_t* bytes);
    // Blocks are numbered over all streams; rows of one block must not be encoded by two threads at once.
    int64_t block_of_row(int64_t index) const { return index / n_cells_ * n_blocks() + index % n_cells_ / kBlockCells; }

    int64_t first_row_of_block(int64_t block) const {
        return block / n_blocks() * n_cells_ + block % n_blocks() * kBlockCells;
    }
    int64_t rows_of_block(int64_t block) const {
        return std::min<int64_t>(kBlockCells, n_cells_ - block % n_blocks() * kBlockCells);
    }

    // Rounds a row to what a saved state would hold of it, so that codes made now and codes made from that state are
    // the same. Without exact rows a state holds what codes decode to, and there is nothing to do.
    void round_to_state(float* row) const;

    // Loads a block whose rows something is computed from that goes back to their cells (context shifts): exact rows
    // where there are some. rows: kBlockCells rows, some unused where the stream ends in the block. Different threads
    // may do different blocks.
    void load_block(int64_t block, float* rows);
    // Stores the cells of the bits that are set. Where these are most of what the block holds, centered keys get their
    // mean as the center, and what else it holds is coded again around it.
    void store_block(float* rows, int64_t block, uint64_t cells);

    // Nominal bytes [offset, offset + size) of the tensor; exact rows where there are some. What is written is as if it
    // had been stored row after row. Long ranges are done by several threads (kv_state.cpp).
    void read(void* bytes, size_t offset, size_t size);
    void write(const void* bytes, size_t offset, size_t size);
    void fill(uint8_t value, size_t offset, size_t size);
    // Copies whole rows within the tensor (between streams), without decoding. False if the ranges are not whole rows.
    bool copy_within(size_t source_offset, size_t offset, size_t size);
    // All bytes have been overwritten by other means.
    void forget_exact() {
        if (exact_) exact_->forget_all();
    }

  private:
    int64_t n_blocks() const { return blocks_of_cells(n_cells_); }  // of a stream
    // The records of the stream that a row, or a block, belongs to.
    Blocks blocks_of_stream(int64_t stream) const;
    Blocks blocks_of_row(int64_t index) const { return blocks_of_stream(index / n_cells_); }

    struct RowRange {
        int64_t begin, end;
    };
    // Those of rows [begin, end) that lie in a block.
    RowRange rows_in_block(int64_t block, int64_t begin, int64_t end) const;
    // Bytes [offset, offset + size) of the nominal tensor, cut into runs of whole rows and parts of single rows:
    // rows(first row, number, bytes done) and part(row, begin in the row, size, bytes done).
    template <class Rows, class Part>
    void for_rows_and_parts(size_t offset, size_t size, Rows rows, Part part) const;
    void load_rows(int64_t first, int64_t n, float* rows);
    void read_rows(uint8_t* bytes, int64_t first, int64_t n);
    void write_rows(const uint8_t* bytes, int64_t first, int64_t n);
    void write_slice(const uint8_t* bytes, int64_t first, int64_t n, int slice, float* row);
    void adopt_exact(const uint8_t* bytes, int64_t first, int64_t n);
    void update_part(int64_t index, size_t begin, size_t size, const uint8_t* bytes);
    bool copy_blocks(int64_t from, int64_t to, int64_t n);
    void copy_exact(int64_t from, int64_t to, int64_t n);

    static inline std::atomic<uint64_t> generation_{0};

    RowFormat format_;
    int64_t n_cells_, n_stream_;
    ggml_type type_;
    size_t row_bytes_;
    Isa isa_;
    std::shared_ptr<const Calibration> calibration_;  // owns scales_
    std::span<const float> scales_;                   // scales of the row's channels, or none
    uint8_t* data_;
    std::optional<RowCodec> codec_;
    std::optional<ExactRows> exact_;  // its slots lie behind the packed bytes
    std::vector<float> row_;          // scratch of the calls that are made by one thread at a time
};

}  // namespace tq::plugin
