// KvCache: what it consists of, writing and reading.
#include "turboquant/cache/kv_cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>

#include "turboquant/base/huge_pages.h"
#include "turboquant/format/fingerprint.h"

namespace tq {
namespace {

Status check_params(const KvCacheParams& p) {
    constexpr int64_t kLimit = int64_t{1} << 40;  // keeps every product of these in 64 bits
    const int64_t n_embd = int64_t{std::max(p.n_head_kv, 1)} * std::max({p.head_dim_k, p.head_dim_v, 1});
    if (p.n_layer <= 0 || p.n_layer > (1 << 16))
        return Status(Error::kInvalidArgument, "n_layer is " + std::to_string(p.n_layer) + "; allowed: 1 to 65536");
    if (p.n_cells <= 0 || p.n_stream <= 0 || p.n_cells > kLimit / n_embd / p.n_stream / p.n_layer) {
        return Status(Error::kInvalidArgument, "n_cells " + std::to_string(p.n_cells) + " x n_stream " +
                                                   std::to_string(p.n_stream) + " is not positive or too large");
    }
    if (p.n_records < 0 || p.n_records >= int64_t{1} << 31 ||
        p.n_stream * blocks_of_cells(p.n_cells) >= int64_t{1} << 31)
        return Status(Error::kInvalidArgument,
                      "n_records is " + std::to_string(p.n_records) + "; allowed: 0 to 2^31 - 1");
    const int reserve = p.exact.n_reserve == kReserveByLength ? 0 : p.exact.n_reserve;
    for (int n : {p.exact.n_sink, p.exact.n_recent, reserve}) {
        if (n >= 0 && n <= kMaxExactCells) continue;
        return Status(Error::kInvalidArgument,
                      "exact cells: " + std::to_string(n) + "; allowed: 0 to " + std::to_string(kMaxExactCells));
    }
    return {};
}

// Record 0 is there beside those that can be given away.
int64_t records_of(const KvCacheParams& params) {
    return 1 + (params.n_records > 0 ? params.n_records : params.n_stream * blocks_of_cells(params.n_cells));
}

Status no_memory(size_t bytes) {
    return Status(Error::kOutOfMemory, "no memory for " + std::to_string(bytes) + " bytes of packed cache");
}

}  // namespace

void KvCache::Deleter::operator()(uint8_t* p) const {
    void* allocated;
    std::memcpy(&allocated, p - sizeof allocated, sizeof allocated);
    std::free(allocated);
}

KvCache::Memory KvCache::allocate_copy(const uint8_t* from, size_t n, size_t bytes) {
    // calloc() gives large memory that takes no pages before it is written to. Its address stands before the aligned
    // one.
    void* allocated = std::calloc(1, bytes + kRecordAlignment + sizeof(void*));
    if (!allocated) return nullptr;
    void* aligned = static_cast<uint8_t*>(allocated) + sizeof allocated;
    size_t space = bytes + kRecordAlignment;
    Memory memory(static_cast<uint8_t*>(std::align(kRecordAlignment, bytes, aligned, space)));
    std::memcpy(memory.get() - sizeof allocated, &allocated, sizeof allocated);
    prefer_huge_pages(memory.get(), bytes);
    if (n > 0) std::memcpy(memory.get(), from, n);
    return memory;
}

Result<KvCache> KvCache::create(const KvCacheParams& params, const Engine& engine) {
    if (Status s = check_params(params); !s.ok()) return s;
    auto keys = make_side(params, tq::Side::kKey, engine);
    if (!keys.ok()) return keys.status();
    auto values = make_side(params, tq::Side::kValue, engine);
    if (!values.ok()) return values.status();
    return KvCache(params, std::move(keys.value()), std::move(values.value()));
}

KvCache::KvCache(const KvCacheParams& params, Side keys, Side values)
    : params_(params),
      keys_(std::move(keys)),
      values_(std::move(values)),
      blocks_(params.n_stream, blocks_of_cells(params.n_cells), records_of(params)),
      lengths_(params.n_stream, 0) {
    copies_.reserve(blocks_of_cells(params.n_ubatch) + 1);
    cells_.reserve(params.n_ubatch);
    if (!params.exact.any()) return;
    exact_ = std::make_unique<ExactIndex>(params.exact, params.n_cells, params.n_stream);
    exact_->reserve(params.n_ubatch);
    for_layers([&](Side& side, int64_t i) {
        Layer& layer = side.layers[i];
        const int64_t n_embd = side.format().n_embd;
        layer.exact.emplace(*exact_, n_embd, reinterpret_cast<uint16_t*>(layer.slots.get()));
        layer.exact->reserve(params.n_ubatch);
        layer.staging.resize(params.n_stream);
        for (std::vector<uint16_t>& rows : layer.staging) rows.reserve(params.n_ubatch * n_embd);
    });
}

Result<KvCache::Side> KvCache::make_side(const KvCacheParams& params, tq::Side side, const Engine& engine) {
    const bool key = side == tq::Side::kKey;
    const int head_dim = key ? params.head_dim_k : params.head_dim_v;
    const std::vector<float>& scales = key ? params.key_scales : params.value_scales;
    auto format = RowFormat::create(params.preset, side, int64_t{params.n_head_kv} * head_dim);
    if (!format.ok()) return format.status();
    const size_t n_embd = static_cast<size_t>(format->n_embd);
    if (!scales.empty() && scales.size() != n_embd * static_cast<size_t>(params.n_layer)) {
        return Status(Error::kInvalidArgument, std::to_string(scales.size()) + " channel scales for n_embd " +
                                                   std::to_string(n_embd) + " of " + std::to_string(params.n_layer) +
                                                   " layers");
    }
    Side made;
    for (size_t first = 0; first == 0 || first < scales.size(); first += n_embd) {
        auto codec =
            engine.make_codec(engine, format.value(), head_dim,
                              scales.empty() ? std::span<const float>() : std::span(scales).subspan(first, n_embd));
        if (!codec.ok()) return codec.status();
        made.codecs.push_back(std::move(codec.value()));
    }
    auto layers = make_layers(params, format.value());
    if (!layers.ok()) return layers.status();
    made.layers = std::move(layers.value());
    return made;
}

Result<std::vector<KvCache::Layer>> KvCache::make_layers(const KvCacheParams& params, const RowFormat& format) {
    const size_t records = static_cast<size_t>(records_of(params)) * format.block_bytes();
    const size_t slots = ExactRows::bytes(params.exact, format.n_embd, params.n_cells, params.n_stream);
    std::vector<Layer> layers(params.n_layer);
    for (Layer& layer : layers) {
        layer.records = allocate(records);
        if (params.exact.any()) layer.slots = allocate(slots);
        if (!layer.records || (params.exact.any() && !layer.slots)) return no_memory(records + slots);
    }
    return layers;
}

Status KvCache::check(int64_t stream, int64_t cell, int64_t n) const {
    if (!has_stream(stream)) {
        return Status(Error::kOutOfRange, "stream " + std::to_string(stream) + " of a cache with " +
                                              std::to_string(params_.n_stream) + " streams");
    }
    if (cell < 0 || n < 0 || cell > params_.n_cells || n > params_.n_cells - cell) {
        return Status(Error::kOutOfRange, std::to_string(n) + " cells from cell " + std::to_string(cell) +
                                              " on, in a cache with " + std::to_string(params_.n_cells) + " cells");
    }
    return {};
}

Status KvCache::check_layer(int64_t layer) const {
    if (layer >= 0 && layer < params_.n_layer) return {};
    return Status(Error::kOutOfRange,
                  "layer " + std::to_string(layer) + " of a cache with " + std::to_string(params_.n_layer) + " layers");
}

PackedTensor KvCache::tensor(const Side& side, int64_t layer) const {
    return {&side.codec(layer),  side.layers[layer].records.get(),
            blocks_.n_records(), params_.n_cells,
            params_.n_stream,    blocks_.data()};
}

Blocks KvCache::blocks(Side& side, int64_t layer, int64_t stream) {
    return {side.layers[layer].records.get(), side.block_bytes(), blocks_.data() + stream * blocks_per_stream()};
}

const ExactRows* KvCache::exact_of(const Side& side, int64_t layer) const {
    const std::optional<ExactRows>& exact = side.layers[layer].exact;
    return exact ? &*exact : nullptr;
}

size_t KvCache::bytes() const {
    size_t bytes = 0;
    for (const Side* side : {&keys_, &values_}) {
        bytes += static_cast<size_t>(blocks_.n_records()) * side->block_bytes() +
                 ExactRows::bytes(params_.exact, side->format().n_embd, params_.n_cells, params_.n_stream);
    }
    return bytes * static_cast<size_t>(params_.n_layer);
}

uint64_t KvCache::fingerprint() const {
    Hash hash;
    for (const Side* side : {&keys_, &values_}) hash.add(side->fingerprint());
    return hash.value();
}

uint64_t KvCache::Side::fingerprint() const {
    Hash hash;
    for (const auto& codec : codecs) hash.add(codec->fingerprint());
    return hash.value();
}

// ---- writing

Status KvCache::begin(int64_t stream, int64_t cell, int64_t n) {
    if (Status s = check(stream, cell, n); !s.ok()) return s;
    if (n > 0) {
        const int64_t first = cell / kBlockCells;
        if (Status s = own(stream, first, blocks_of_cells(cell + n) - first); !s.ok()) return s;
        lengths_[stream] = std::max(lengths_[stream], cell + n);
    }
    ubatch_ = {stream, cell, n};
    if (exact_) begin_exact();
    return {};
}

// Gives the stream records of its own for these blocks.
Status KvCache::own(int64_t stream, int64_t first_block, int64_t n_blocks) {
    copies_.clear();
    if (Status s = blocks_.own(stream, first_block, n_blocks, copies_); !s.ok()) return s;
    if (copies_.empty()) return {};
    for_layers([&](Side& side, int64_t layer) {
        const Blocks records{side.layers[layer].records.get(), side.block_bytes()};
        for (const auto& [from, to] : copies_) std::memcpy(records.at(to), records.at(from), records.stride);
    });
    return {};
}

// Announces the rows of the ubatch to the index, and makes room for them.
void KvCache::begin_exact() {
    const Ubatch ubatch = ubatch_;
    commit_exact(ubatch.stream);  // before the staging memory is written to
    cells_.resize(ubatch.n);
    std::iota(cells_.begin(), cells_.end(), ubatch.stream * params_.n_cells + ubatch.cell);
    exact_->begin(cells_);
    for_layers([&](Side& side, int64_t i) {
        Layer& layer = side.layers[i];
        std::vector<uint16_t>& staging = layer.staging[ubatch.stream];
        staging.resize(ubatch.n * side.format().n_embd);
        layer.exact->stage(cells_, staging.data());
    });
}

// The stream's last write has been attended to.
void KvCache::commit_exact(int64_t stream) {
    exact_->commit(stream);
    follow_exact();
}

// Makes the index's moves in all layers.
void KvCache::follow_exact() {
    for_layers([&](Side& side, int64_t layer) { side.layers[layer].exact->follow(exact_->moves()); });
}

// Slices are independent of each other. Blocks are too, but not those of centered keys. One item more keeps exact rows.
int64_t KvCache::n_items(const Side& side) const {
    const BlockCodec& codec = *side.codecs.front();
    const int64_t n_blocks = blocks_of_cells(ubatch_.cell + ubatch_.n) - ubatch_.cell / kBlockCells;
    return codec.n_slices() * (codec.format().centered() ? 1 : n_blocks) + (exact_ ? 1 : 0);
}

int64_t KvCache::n_store_items() const {
    return ubatch_.n > 0 ? n_items(keys_) + n_items(values_) : 0;
}

void KvCache::store(int64_t item, const float* k, const float* v, int64_t layer) {
    const int64_t n_keys = n_items(keys_);
    if (item < n_keys)
        encode_item(keys_, layer, item, k);
    else
        encode_item(values_, layer, item - n_keys, v);
}

void KvCache::encode_item(Side& side, int64_t layer, int64_t item, const float* rows) {
    const auto& [stream, cell, n] = ubatch_;
    const BlockCodec& codec = side.codec(layer);
    const int64_t n_embd = codec.format().n_embd;
    if (exact_ && item == n_items(side) - 1) {
        for (int64_t i = 0; i < n; ++i) side.layers[layer].exact->store(i, rows + i * n_embd);
        return;
    }
    const int slice = static_cast<int>(item % codec.n_slices());
    int64_t first = cell, end = cell + n;
    if (!codec.format().centered()) {  // one block
        const int64_t block = cell / kBlockCells + item / codec.n_slices();
        first = std::max(first, block * kBlockCells);
        end = std::min(end, (block + 1) * kBlockCells);
    }
    const Blocks target = blocks(side, layer, stream);
    for (int64_t at = first; at < end; ++at) {
        const int64_t in_block = at % kBlockCells, rest = std::min(end - at, kBlockCells - in_block);
        const uint64_t rewritten = ~uint64_t{0} >> (kBlockCells - rest) << in_block;  // cells that are still to come
        codec.encode_slice(rows + (at - cell) * n_embd, target, at, slice, rewritten);
    }
}

Status KvCache::write(int64_t stream, int64_t cell, int64_t n, const float* k, const float* v) {
    if (params_.n_layer > 1)
        return Status(Error::kInvalidArgument, "caches of several layers are written with begin() and store()");
    if (Status s = begin(stream, cell, n); !s.ok()) return s;
    for (int64_t item = 0; item < n_store_items(); ++item) store(item, k, v);
    return {};
}

// ---- reading

Status KvCache::read(int64_t stream, int64_t cell, int64_t n, float* k, float* v, int64_t layer) const {
    if (Status s = check(stream, cell, n); !s.ok()) return s;
    if (Status s = check_layer(layer); !s.ok()) return s;
    for (const auto& [side, rows] : {std::pair(&keys_, k), std::pair(&values_, v)}) {
        if (!rows) continue;
        const PackedTensor from = tensor(*side, layer);
        for (int64_t done = 0; done < n;) {
            const int64_t first = (cell + done) % kBlockCells, count = std::min(n - done, kBlockCells - first);
            from.codec->decode_block(from.blocks(stream), (cell + done) / kBlockCells, static_cast<int>(first),
                                     static_cast<int>(count), rows + done * from.codec->format().n_embd);
            done += count;
        }
    }
    return {};
}

}  // namespace tq
