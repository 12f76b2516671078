// A packed KV cache, for engines that have none of their own: the layers of a model, sequences (streams) with cells of
// their own, block records that they may share. There is never a dense copy.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "turboquant/cache/block_table.h"
#include "turboquant/cache/engine.h"
#include "turboquant/cache/exact_rows.h"
#include "turboquant/cache/packed_tensor.h"

namespace tq {

struct KvCacheParams {
    Preset preset;
    int head_dim_k = 0;
    int head_dim_v = 0;
    int n_head_kv = 0;
    int64_t n_cells = 0;  // the most cells that a stream can have
    int64_t n_stream = 1;
    // A calibration gives a scale for each channel of all heads, n_head_kv*head_dim for each layer (format/rotation.h);
    // none: ones.
    std::vector<float> key_scales = {}, value_scales = {};
    ExactCells exact = {};  // attention must be told: exact_keys(), exact_values()
    int64_t n_layer = 1;
    // Block records that the keys and the values of a layer have each: the memory that there is. Streams take them from
    // there as they grow. 0: as many as all streams can have.
    int64_t n_records = 0;
    int64_t n_ubatch = 0;  // a write of up to so many rows allocates nothing
};

class KvCache {
  public:
    // Errors: kInvalidArgument, kUnsupported (head_dim), kOutOfMemory.
    static Result<KvCache> create(const KvCacheParams& params, const Engine& engine);

    // ---- writing

    // Cells [cell, cell + n) of a stream are about to be written, in all layers; any cell may be, again and in any
    // order. Blocks that other streams have too are copied first. Errors: kOutOfRange, kOutOfMemory (no record is
    // left); nothing changed.
    Status begin(int64_t stream, int64_t cell, int64_t n);
    // begin() at the stream's length, which grows by n.
    Status begin_append(int64_t stream, int64_t n) { return begin(stream, length(stream), n); }
    // Stores the rows of the last begin() in a layer: items [0, n_store_items()), each once, in any order, by any
    // threads at once; layers are independent too. k: n rows of n_head_kv*head_dim_k floats, v: of
    // n_head_kv*head_dim_v.
    int64_t n_store_items() const;
    void store(int64_t item, const float* k, const float* v, int64_t layer = 0);

    // Of a cache of one layer: begin() and all items on the calling thread. Error: kInvalidArgument with more layers.
    Status write(int64_t stream, int64_t cell, int64_t n, const float* k, const float* v);
    Status append(int64_t stream, int64_t n, const float* k, const float* v) {
        return write(stream, length(stream), n, k, v);
    }

    // ---- reading

    // Decodes n cells to dense rows; either pointer may be null. Cells that nothing was written to are zeros. Error:
    // kOutOfRange.
    Status read(int64_t stream, int64_t cell, int64_t n, float* k, float* v, int64_t layer = 0) const;
    PackedTensor keys(int64_t layer = 0) const { return tensor(keys_, layer); }
    PackedTensor values(int64_t layer = 0) const { return tensor(values_, layer); }
    // Null if there are none. The query of a token has to be the token'th of the stream's last write, or come alone.
    const ExactRows* exact_keys(int64_t layer = 0) const { return exact_of(keys_, layer); }
    const ExactRows* exact_values(int64_t layer = 0) const { return exact_of(values_, layer); }

    // ---- cells and blocks

    // Copies cells between (or within) streams; ranges may overlap. Byte for byte, but for keys whose block has another
    // center there: those are encoded again. Exact rows go along. The last write to the stream they come from must have
    // been attended to.
    Status copy(int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell, int64_t n);

    // A stream becomes the first n cells of another: it shares all blocks but the last one, if that is not whole. Exact
    // rows go along. The last write to the other must have been attended to. Errors: kOutOfRange, kOutOfMemory.
    Status fork(int64_t from_stream, int64_t to_stream, int64_t n);

    // Drops cells [length, ...) of a stream. The cells keep no data. Error: kOutOfMemory if a block with cells to drop
    // is shared and no record is left.
    Status truncate(int64_t stream, int64_t length);

    // Drops the first n cells of a stream, moving the rest to the front.
    Status trim_front(int64_t stream, int64_t n);

    void clear();

    // There are n_records records from now on. Error: kOutOfMemory, nothing changed. Does nothing if there are as many.
    Status grow(int64_t n_records);

    // ---- snapshots (cache/snapshot.cpp): the records of a stream, as they lie

    // Bytes that load() takes, also in another cache of the same model and preset.
    // The last write to the stream must have been attended to. Empty for a stream that does not exist.
    std::vector<uint8_t> save(int64_t stream);
    // A stream becomes what was saved. Errors: kInvalidArgument naming what differs or is damaged, kOutOfRange,
    // kOutOfMemory; nothing changed.
    Status load(int64_t stream, std::span<const uint8_t> bytes);

    // ---- numbers

    // 0 of a stream that does not exist.
    int64_t length(int64_t stream) const { return has_stream(stream) ? lengths_[stream] : 0; }
    const KvCacheParams& params() const { return params_; }
    // Records and slots of exact rows. Rows of the last write wait beside them if there are exact ones.
    size_t bytes() const;
    int64_t n_records() const { return blocks_.n_records() - 1; }
    int64_t n_free_records() const { return blocks_.n_free(); }
    uint64_t fingerprint() const;  // of all codecs

  private:
    struct Deleter {
        void operator()(uint8_t* p) const;  // of memory that allocate() gave
    };
    using Memory = std::unique_ptr<uint8_t[], Deleter>;
    // Zero-filled; null if there is not so much. The second begins with what is at `from`.
    static Memory allocate(size_t bytes) { return allocate_copy(nullptr, 0, bytes); }
    static Memory allocate_copy(const uint8_t* from, size_t n, size_t bytes);

    // Keys or values of one layer.
    struct Layer {
        Memory records;
        Memory slots;
        std::optional<ExactRows> exact;
        std::vector<std::vector<uint16_t>> staging;  // rows of each stream's last write
    };
    struct Side {
        std::vector<std::unique_ptr<BlockCodec>> codecs;  // one for all layers, or (with channel scales) for each
        std::vector<Layer> layers;

        const BlockCodec& codec(int64_t layer) const { return *codecs[codecs.size() > 1 ? layer : 0]; }
        const RowFormat& format() const { return codecs.front()->format(); }
        size_t block_bytes() const { return format().block_bytes(); }
        uint64_t fingerprint() const;  // of all codecs
    };
    // The rows of the last begin().
    struct Ubatch {
        int64_t stream = 0, cell = 0, n = 0;
    };

    KvCache(const KvCacheParams& params, Side keys, Side values);
    static Result<Side> make_side(const KvCacheParams& params, tq::Side side, const Engine& engine);
    static Result<std::vector<Layer>> make_layers(const KvCacheParams& params, const RowFormat& format);

    bool has_stream(int64_t stream) const { return stream >= 0 && stream < params_.n_stream; }
    Status check(int64_t stream, int64_t cell, int64_t n) const;
    Status check_layer(int64_t layer) const;
    int64_t blocks_per_stream() const { return blocks_of_cells(params_.n_cells); }

    PackedTensor tensor(const Side& side, int64_t layer) const;
    Blocks blocks(Side& side, int64_t layer, int64_t stream);
    const ExactRows* exact_of(const Side& side, int64_t layer) const;
    // Calls fn(side, layer number) on keys and values of all layers.
    template <class Fn>
    void for_layers(Fn fn) {
        for (Side* side : {&keys_, &values_})
            for (int64_t layer = 0; layer < params_.n_layer; ++layer) fn(*side, layer);
    }

    int64_t n_items(const Side& side) const;
    void encode_item(Side& side, int64_t layer, int64_t item, const float* rows);
    Status own(int64_t stream, int64_t first_block, int64_t n_blocks);
    void begin_exact();
    void commit_exact(int64_t stream);
    void follow_exact();
    void clear_stream(int64_t stream);
    void clear_cells(int64_t stream, int64_t begin, int64_t end);
    void copy_cells(Side& side, int64_t layer, int64_t from_stream, int64_t from_cell, int64_t to_stream,
                    int64_t to_cell, int64_t n);
    void copy_exact(int64_t from, int64_t to, int64_t n);
    std::vector<int64_t> exact_cells(int64_t first, int64_t n) const;
    std::vector<uint16_t> exact_rows(const std::vector<int64_t>& cells);
    void adopt_exact(const std::vector<int64_t>& cells, const uint8_t* rows);
    Status check_snapshot(const struct SnapshotHeader& header, size_t size) const;
    size_t snapshot_bytes(int64_t n_cells, int64_t n_exact) const;
    void load_exact(int64_t stream, const uint8_t* at, int64_t n);

    KvCacheParams params_;
    Side keys_, values_;
    BlockTable blocks_;
    std::unique_ptr<ExactIndex> exact_;  // one for all layers; null: no exact rows
    std::vector<int64_t> lengths_;
    Ubatch ubatch_;
    std::vector<BlockTable::Copy> copies_;  // scratch
    std::vector<int64_t> cells_;            // scratch
};

}  // namespace tq
