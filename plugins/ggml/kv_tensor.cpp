#include "kv_tensor.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace tq::plugin {
namespace {

// "k" or "v" in cache_k_l12; nothing else matches. Caches with a tag (cache_idx_k_l3) are no attention's keys and
// values.
std::optional<Side> side_of_name(std::string_view name) {
    constexpr std::string_view kKeys = "cache_k_l", kValues = "cache_v_l";
    const bool key = name.starts_with(kKeys);
    if (!key && !name.starts_with(kValues)) return std::nullopt;
    const std::string_view layer = name.substr(kKeys.size());
    const bool number =
        !layer.empty() && std::all_of(layer.begin(), layer.end(), [](unsigned char c) { return std::isdigit(c); });
    if (!number) return std::nullopt;
    return key ? Side::kKey : Side::kValue;
}

// Takes a name that side_of_name knows.
int layer_of_name(std::string_view name) {
    return std::atoi(name.data() + name.rfind("_l") + 2);
}

RowFormat format_of(const ggml_tensor* root, Side side, const Config& config) {
    const Preset& preset = config.presets.of(layer_of_name(root->name));
    return RowFormat::create(preset, side, root->ne[0]).value();  // kv_side has checked what create() checks
}

size_t record_bytes(const RowFormat& format, const ggml_tensor* root) {
    return static_cast<size_t>(root->ne[2] * blocks_of_cells(root->ne[1])) * format.block_bytes();
}

std::span<const float> scales_of(const ggml_tensor* root, Side side, const Config& config) {
    if (!config.calibration) return {};
    const int layer = layer_of_name(root->name);
    return config.calibration->scales(layer, side, is_centered(config.presets.of(layer).coding(side)), root->ne[0]);
}

// The widest rotation that fits a row whose head_dim is unknown or not supported.
int substitute_head_dim(int64_t n_embd) {
    for (int dim = kMaxHeadDim; dim > kMinHeadDim; dim -= kStepDims) {
        if (n_embd % dim == 0) return dim;
    }
    return kMinHeadDim;
}

}  // namespace

const ggml_tensor* root_of(const ggml_tensor* tensor) {
    while (tensor->view_src) tensor = tensor->view_src;
    return tensor;
}

std::optional<Side> kv_side(const ggml_tensor* root) {
    if (root->view_src || root->op != GGML_OP_NONE) return std::nullopt;
    if (root->type != GGML_TYPE_F16 && root->type != GGML_TYPE_BF16) return std::nullopt;
    const std::optional<Side> side = side_of_name(root->name);
    if (!side || root->ne[3] != 1 || !ggml_is_contiguous(root)) return std::nullopt;
    constexpr int64_t kMaxValues = int64_t{1} << 40;
    if (!RowFormat::create(*side, kMinBits, root->ne[0]).ok() || ggml_nelements(root) > kMaxValues) return std::nullopt;
    return side;
}

size_t KvTensor::allocated_bytes(const ggml_tensor* root, Side side, const Config& config) {
    return record_bytes(format_of(root, side, config), root) +
           ExactRows::bytes(config.presets.exact(), root->ne[0], root->ne[1], root->ne[2]);
}

KvTensor::KvTensor(const ggml_tensor* root, Side side, const Config& config, uint8_t* data)
    : format_(format_of(root, side, config)),
      n_cells_(root->ne[1]),
      n_stream_(root->ne[2]),
      type_(root->type),
      row_bytes_(ggml_row_size(root->type, root->ne[0])),
      isa_(config.isa),
      calibration_(config.calibration),
      scales_(scales_of(root, side, config)),
      data_(data),
      row_(root->ne[0]) {
    if (const ExactCells& cells = config.presets.exact(); cells.any()) {
        exact_.emplace(cells, format_.n_embd, n_cells_, n_stream_,
                       reinterpret_cast<uint16_t*>(data + record_bytes(format_, root)));
    }
    ++generation_;
}

const RowCodec& KvTensor::codec() {
    if (!codec_) codec_ = RowCodec::create(format_, substitute_head_dim(format_.n_embd), isa_, scales_).value();
    return *codec_;
}

void KvTensor::set_head_dim(int head_dim) {
    if (codec_ && codec_->head_dim() == head_dim) return;
    Result<RowCodec> codec = RowCodec::create(format_, head_dim, isa_, scales_);
    if (!codec.ok()) return;  // stays with the substitute; attention says why
    if (codec_) {
        for (int64_t i = 0; i < n_rows(); ++i) {
            decode_row(i, row_.data());
            if (std::all_of(row_.begin(), row_.end(), [](float x) { return x == 0; }))
                continue;  // most likely never written
            codec->encode(row_.data(), blocks_of_row(i), i % n_cells_);
        }
    }
    ++generation_;
    codec_ = std::move(codec.value());
}

void KvTensor::encode_slice(const float* row, int64_t index, int slice, uint64_t rewritten) {
    codec().encode_slice(row, blocks_of_row(index), index % n_cells_, slice, rewritten);
}

void KvTensor::encode_row(const float* row, int64_t index) {
    codec().encode(row, blocks_of_row(index), index % n_cells_);
}

void KvTensor::decode_row(int64_t index, float* row) {
    codec().decode(blocks_of_row(index), index % n_cells_, row);
}

Blocks KvTensor::blocks_of_stream(int64_t stream) const {
    const size_t stride = format_.block_bytes();
    return {data_ + static_cast<size_t>(stream * n_blocks()) * stride, stride, nullptr};
}

// Copies the records of blocks that go as a whole to the same place in another stream, then the other rows. True if
// that could be done: ranges that do not lie in the same cells of two streams are copied row by row.
bool KvTensor::copy_blocks(int64_t from, int64_t to, int64_t n) {
    const int64_t from_stream = from / n_cells_, to_stream = to / n_cells_, first = to % n_cells_, end = first + n;
    if (from_stream == to_stream || from % n_cells_ != first || end > n_cells_) return false;
    const Blocks source = blocks_of_stream(from_stream), target = blocks_of_stream(to_stream);
    for (int64_t cell = first; cell < end;) {
        const int64_t block = cell / kBlockCells, next = std::min((block + 1) * kBlockCells, n_cells_);
        if (cell % kBlockCells == 0 && end >= next) {
            std::memcpy(target.at(block), source.at(block), format_.block_bytes());
            cell = next;
        } else {
            codec().copy(source, cell, target, cell);
            ++cell;
        }
    }
    return true;
}

// Copies exact rows where the ranges do not overlap; what is copied over itself has codes alone.
void KvTensor::copy_exact(int64_t from, int64_t to, int64_t n) {
    exact_->forget(to, n);
    for (int64_t i = 0; i < n; ++i) {
        const uint16_t* source = exact_->find(from + i);
        uint16_t* slot = source && std::abs(from - to) >= n ? exact_->adopt(to + i) : nullptr;
        if (slot && slot != source) std::memcpy(slot, source, sizeof(uint16_t) * format_.n_embd);
    }
}

bool KvTensor::copy_within(size_t source_offset, size_t offset, size_t size) {
    if (offset % row_bytes_ != 0 || source_offset % row_bytes_ != 0 || size % row_bytes_ != 0) return false;
    const int64_t from = static_cast<int64_t>(source_offset / row_bytes_),
                  to = static_cast<int64_t>(offset / row_bytes_);
    const int64_t n = static_cast<int64_t>(size / row_bytes_);
    const bool as_blocks = copy_blocks(from, to, n);
    for (int64_t i = 0; !as_blocks && i < n; ++i) {
        const int64_t at = from < to ? n - 1 - i : i;
        codec().copy(blocks_of_row(from + at), (from + at) % n_cells_, blocks_of_row(to + at), (to + at) % n_cells_);
    }
    if (exact_) copy_exact(from, to, n);
    return true;
}

}  // namespace tq::plugin
