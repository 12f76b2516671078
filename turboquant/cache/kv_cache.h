// A packed KV cache of one attention layer, for engines that have none of their own.
// Codes live in two buffers (keys, values) of block records; there is never a dense copy.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "turboquant/cache/engine.h"
#include "turboquant/cache/exact_rows.h"
#include "turboquant/cache/packed_tensor.h"

namespace tq {

struct KvCacheParams {
    Preset preset;
    int head_dim_k = 0;
    int head_dim_v = 0;
    int n_head_kv = 0;
    int64_t n_cells = 0;  // cells that a stream has
    int64_t n_stream = 1;
    // A calibration gives a scale for each channel of all heads, n_head_kv*head_dim (format/rotation.h); none: ones.
    std::vector<float> key_scales = {}, value_scales = {};
    ExactCells exact = {};  // attention must be told: exact_keys(), exact_values()
};

class KvCache {
  public:
    // Errors: kInvalidArgument, kUnsupported (head_dim), kOutOfMemory.
    static Result<KvCache> create(const KvCacheParams& params, const Engine& engine);

    // Writes cells [cell, cell + n): k is n rows of n_head_kv*head_dim_k floats, v of n_head_kv*head_dim_v floats.
    // Any cell may be written, again and in any order. Error: kOutOfRange, nothing written.
    Status write(int64_t stream, int64_t cell, int64_t n, const float* k, const float* v);

    // write() at the stream's length, which grows by n.
    Status append(int64_t stream, int64_t n, const float* k, const float* v);

    // Decodes n cells to dense rows; either pointer may be null.
    Status read(int64_t stream, int64_t cell, int64_t n, float* k, float* v) const;

    // Copies cells between (or within) streams; ranges may overlap. Byte for byte, but for keys whose block has another
    // center there: those are encoded again. Exact rows go along. The last write() of the stream they come from must
    // have been attended to.
    Status copy(int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell, int64_t n);

    // Drops cells [length, ...) of a stream. The cells keep no data.
    Status truncate(int64_t stream, int64_t length);

    // Drops the first n cells of a stream, moving the rest to the front.
    Status trim_front(int64_t stream, int64_t n);

    void clear();

    // 0 of a stream that does not exist.
    int64_t length(int64_t stream) const { return stream >= 0 && stream < params_.n_stream ? lengths_[stream] : 0; }
    const KvCacheParams& params() const { return params_; }
    // Codes, scales and exact rows. Rows of the last write() wait beside them if there are exact ones.
    size_t bytes() const { return keys_.bytes() + values_.bytes(); }
    PackedTensor keys() const { return keys_.tensor(); }
    PackedTensor values() const { return values_.tensor(); }
    // Null if there are none. The query of a token has to be the token'th of the stream's last write(), or come alone.
    const ExactRows* exact_keys() const { return keys_.exact ? &*keys_.exact : nullptr; }
    const ExactRows* exact_values() const { return values_.exact ? &*values_.exact : nullptr; }

  private:
    struct Deleter {
        void operator()(uint8_t* p) const;
    };
    struct Plane {
        std::unique_ptr<BlockCodec> codec;
        std::unique_ptr<uint8_t[], Deleter> data;  // records, then the slots of exact rows
        int64_t n_cells, n_stream;
        std::optional<ExactRows> exact;
        std::vector<std::vector<uint16_t>> staging;  // rows of each stream's last write()

        int64_t n_records() const { return n_stream * blocks_of_cells(n_cells); }
        PackedTensor tensor() const { return {codec.get(), data.get(), n_records(), n_cells, n_stream}; }
        Blocks blocks(int64_t stream) const;
        size_t bytes() const;
        void write(int64_t stream, int64_t cell, int64_t n, const float* rows);
        void keep_exact(int64_t stream, int64_t cell, int64_t n, const float* rows);
        void read(int64_t stream, int64_t cell, int64_t n, float* rows) const;
        void copy(int64_t from_stream, int64_t from_cell, int64_t to_stream, int64_t to_cell, int64_t n);
        void copy_exact(int64_t from, int64_t to, int64_t n);
        void truncate(int64_t stream, int64_t length, int64_t old_length);
        void clear();
    };
    static Result<Plane> create_plane(const KvCacheParams& params, Side side, const Engine& engine);

    KvCache(const KvCacheParams& params, Plane keys, Plane values)
        : params_(params), keys_(std::move(keys)), values_(std::move(values)), lengths_(params.n_stream, 0) {}

    Status check(int64_t stream, int64_t cell, int64_t n) const;

    KvCacheParams params_;
    Plane keys_;
    Plane values_;
    std::vector<int64_t> lengths_;
};

}  // namespace tq
