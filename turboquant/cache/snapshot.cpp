// KvCache: a stream as bytes. A header that says what they are, the records of its blocks as they lie ([side][layer]
// [block]), the cells that have exact rows, and these ([side][layer][cell]). Little-endian; docs/codec.md, section 8.
#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "turboquant/cache/kv_cache.h"
#include "turboquant/format/fingerprint.h"

namespace tq {

static_assert(std::endian::native == std::endian::little, "records are little-endian, and so are the kernels");

struct SnapshotHeader {
    struct OfSide {
        int32_t bits, coding, head_dim, padding;
        int64_t n_embd;
        uint64_t fingerprint;  // of all layers' codecs
    };
    char magic[8];
    uint32_t version;
    uint32_t n_layer;
    OfSide keys, values;
    int64_t n_cells;  // of the stream
    int64_t n_exact;  // cells with exact rows
};
static_assert(sizeof(SnapshotHeader) == 96);

namespace {

constexpr char kMagic[8] = {'T', 'Q', 'C', 'A', 'C', 'H', 'E', '\n'};

Status refuse(const std::string& reason) {
    return Status(Error::kInvalidArgument, "not a snapshot of this cache: " + reason);
}

template <class Side>
SnapshotHeader::OfSide describe(const Side& side) {
    const RowFormat& format = side.format();
    return {format.bits,       static_cast<int32_t>(format.coding), side.codecs.front()->head_dim(), 0, format.n_embd,
            side.fingerprint()};
}

// What differs, by name; "" if nothing does.
std::string difference(const char* side, const SnapshotHeader::OfSide& saved, const SnapshotHeader::OfSide& here) {
    const auto number = [&](const char* name, int64_t a, int64_t b) {
        return a == b ? std::string()
                      : std::string(name) + " of " + side + " is " + std::to_string(a) + ", here " + std::to_string(b);
    };
    for (const std::string& text :
         {number("bits", saved.bits, here.bits), number("the coding", saved.coding, here.coding),
          number("head_dim", saved.head_dim, here.head_dim), number("n_embd", saved.n_embd, here.n_embd)}) {
        if (!text.empty()) return text;
    }
    if (saved.fingerprint == here.fingerprint) return "";
    return std::string("the fingerprint of ") + side +
           " differs: another calibration, or another version of the format";
}

template <class T>
uint8_t* put(uint8_t* at, const T* values, size_t n) {
    if (n > 0) std::memcpy(at, values, sizeof(T) * n);  // nothing may be null
    return at + sizeof(T) * n;
}

}  // namespace

std::vector<uint8_t> KvCache::save(int64_t stream) {
    if (!has_stream(stream)) return {};
    std::vector<int64_t> exact;  // cells
    std::vector<uint16_t> rows;
    if (exact_) {
        commit_exact(stream);
        exact = exact_cells(stream * params_.n_cells, lengths_[stream]);
        rows = exact_rows(exact);
        for (int64_t& cell : exact) cell -= stream * params_.n_cells;
    }
    SnapshotHeader header{};
    std::copy_n(kMagic, sizeof kMagic, header.magic);
    header.version = kFormatVersion;
    header.n_layer = static_cast<uint32_t>(params_.n_layer);
    header.keys = describe(keys_);
    header.values = describe(values_);
    header.n_cells = lengths_[stream];
    header.n_exact = std::ssize(exact);
    std::vector<uint8_t> bytes(snapshot_bytes(header.n_cells, header.n_exact));
    uint8_t* at = put(bytes.data(), &header, 1);
    for_layers([&](Side& side, int64_t layer) {
        const Blocks from = blocks(side, layer, stream);
        for (int64_t block = 0; block < blocks_of_cells(header.n_cells); ++block)
            at = put(at, from.at(block), from.stride);
    });
    put(put(at, exact.data(), exact.size()), rows.data(), rows.size());
    return bytes;
}

size_t KvCache::snapshot_bytes(int64_t n_cells, int64_t n_exact) const {
    size_t of_layer = 0;
    for (const Side* side : {&keys_, &values_}) {
        of_layer += static_cast<size_t>(blocks_of_cells(n_cells)) * side->block_bytes() +
                    sizeof(uint16_t) * static_cast<size_t>(n_exact * side->format().n_embd);
    }
    return sizeof(SnapshotHeader) + sizeof(int64_t) * static_cast<size_t>(n_exact) +
           static_cast<size_t>(params_.n_layer) * of_layer;
}

Status KvCache::check_snapshot(const SnapshotHeader& header, size_t size) const {
    if (!std::equal(kMagic, std::end(kMagic), header.magic)) return refuse("its first bytes are others");
    if (header.version != kFormatVersion) {
        return refuse("it has version " + std::to_string(header.version) + " of the format, here " +
                      std::to_string(kFormatVersion));
    }
    if (header.n_layer != params_.n_layer) {
        return refuse("it has " + std::to_string(header.n_layer) + " layers, here are " +
                      std::to_string(params_.n_layer));
    }
    for (const std::string& text :
         {difference("keys", header.keys, describe(keys_)), difference("values", header.values, describe(values_))}) {
        if (!text.empty()) return refuse(text);
    }
    if (header.n_cells < 0 || header.n_cells > params_.n_cells) {
        return Status(Error::kOutOfRange, "the snapshot has " + std::to_string(header.n_cells) +
                                              " cells, a stream at most " + std::to_string(params_.n_cells));
    }
    if (header.n_exact < 0 || header.n_exact > header.n_cells)
        return refuse("it has " + std::to_string(header.n_exact) + " exact rows of " + std::to_string(header.n_cells) +
                      " cells");
    if (const size_t wanted = snapshot_bytes(header.n_cells, header.n_exact); size != wanted)
        return refuse("it has " + std::to_string(size) + " bytes instead of " + std::to_string(wanted));
    return {};
}

Status KvCache::load(int64_t stream, std::span<const uint8_t> bytes) {
    if (Status s = check(stream, 0, 0); !s.ok()) return s;
    SnapshotHeader header{};
    if (bytes.size() < sizeof header) return refuse("it has " + std::to_string(bytes.size()) + " bytes");
    std::memcpy(&header, bytes.data(), sizeof header);
    if (Status s = check_snapshot(header, bytes.size()); !s.ok()) return s;
    const int64_t n_blocks = blocks_of_cells(header.n_cells);
    if (n_blocks > n_free_records() + blocks_.n_owned(stream)) {
        return Status(Error::kOutOfMemory, "no block records left: " + std::to_string(n_blocks) + " wanted, " +
                                               std::to_string(n_free_records()) + " free");
    }
    clear_stream(stream);
    if (Status s = own(stream, 0, n_blocks); !s.ok()) return s;
    lengths_[stream] = header.n_cells;
    const uint8_t* at = bytes.data() + sizeof header;
    for_layers([&](Side& side, int64_t layer) {
        const Blocks to = blocks(side, layer, stream);
        for (int64_t block = 0; block < n_blocks; ++block, at += to.stride) std::memcpy(to.at(block), at, to.stride);
    });
    if (exact_) load_exact(stream, at, header.n_exact);
    return {};
}

// at: n cells, then their rows. Cells that this cache would not keep, and any that a stream does not have, are left
// out.
void KvCache::load_exact(int64_t stream, const uint8_t* at, int64_t n) {
    std::vector<int64_t> cells(static_cast<size_t>(n));
    if (n > 0) std::memcpy(cells.data(), at, sizeof(int64_t) * cells.size());
    for (int64_t& cell : cells) cell = cell >= 0 && cell < lengths_[stream] ? stream * params_.n_cells + cell : -1;
    adopt_exact(cells, at + sizeof(int64_t) * cells.size());
}

}  // namespace tq
