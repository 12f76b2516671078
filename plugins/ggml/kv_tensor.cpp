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

PackedLayout layout_of(const ggml_tensor* root, Side side, const Config& config) {
    const Preset& preset = config.presets.of(layer_of_name(root->name));
    // kv_side has checked what create() checks.
    return PackedLayout::create(preset, side, root->ne[0], root->ne[1], root->ne[2]).value();
}

std::span<const float> scales_of(const ggml_tensor* root, Side side, const Config& config) {
    if (!config.calibration) return {};
    const int layer = layer_of_name(root->name);
    return config.calibration->scales(layer, side, config.presets.of(layer).centered(side), root->ne[0]);
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
    return PackedLayout::create(*side, kMinBits, root->ne[0], root->ne[1], root->ne[2]).ok() ? side : std::nullopt;
}

size_t KvTensor::allocated_bytes(const ggml_tensor* root, Side side, const Config& config) {
    return layout_of(root, side, config).bytes() +
           ExactRows::bytes(config.presets.exact(), root->ne[0], root->ne[1], root->ne[2]);
}

KvTensor::KvTensor(const ggml_tensor* root, Side side, const Config& config, uint8_t* data)
    : layout_(layout_of(root, side, config)),
      type_(root->type),
      row_bytes_(ggml_row_size(root->type, root->ne[0])),
      isa_(config.isa),
      calibration_(config.calibration),
      scales_(scales_of(root, side, config)),
      data_(data),
      row_(root->ne[0]) {
    if (const ExactCells& cells = config.presets.exact(); cells.any()) {
        exact_.emplace(cells, layout_.n_embd, layout_.n_cells, layout_.n_stream,
                       reinterpret_cast<uint16_t*>(data + layout_.bytes()));
    }
    ++generation_;
}

const RowCodec& KvTensor::codec() {
    if (!codec_) codec_ = RowCodec::create(layout_, substitute_head_dim(layout_.n_embd), isa_, scales_).value();
    return *codec_;
}

void KvTensor::set_head_dim(int head_dim) {
    if (codec_ && codec_->head_dim() == head_dim) return;
    Result<RowCodec> codec = RowCodec::create(layout_, head_dim, isa_, scales_);
    if (!codec.ok()) return;  // stays with the substitute; attention says why
    if (codec_) {
        for (int64_t i = 0; i < n_rows(); ++i) {
            decode_row(i, row_.data());
            if (std::all_of(row_.begin(), row_.end(), [](float x) { return x == 0; }))
                continue;  // most likely never written
            codec->encode(row_.data(), data_, i / layout_.n_cells, i % layout_.n_cells);
        }
    }
    ++generation_;
    codec_ = std::move(codec.value());
}

void KvTensor::encode_slice(const float* row, int64_t index, int slice, uint64_t rewritten) {
    codec().encode_slice(row, data_, index / layout_.n_cells, index % layout_.n_cells, slice, rewritten);
}

void KvTensor::encode_row(const float* row, int64_t index) {
    codec().encode(row, data_, index / layout_.n_cells, index % layout_.n_cells);
}

void KvTensor::decode_row(int64_t index, float* row) {
    codec().decode(data_, index / layout_.n_cells, index % layout_.n_cells, row);
}

// Copies the centers of the blocks that are copied as a whole from one stream to another.
void KvTensor::copy_centers(int64_t from, int64_t to, int64_t n) {
    const int64_t cells = layout_.n_cells;
    if (from / cells == to / cells || from % cells != to % cells) return;
    for (int64_t row = (to % cells + kBlockCells - 1) / kBlockCells * kBlockCells - to % cells; row < n;
         row += kBlockCells) {
        const int64_t cell = to % cells + row;
        if (std::min(cell + kBlockCells, cells) > to % cells + n) return;  // not the whole block
        codec().copy_center(data_, from / cells, cell / kBlockCells, to / cells, cell / kBlockCells);
    }
}

// Copies exact rows where the ranges do not overlap; what is copied over itself has codes alone.
void KvTensor::copy_exact(int64_t from, int64_t to, int64_t n) {
    exact_->forget(to, n);
    for (int64_t i = 0; i < n; ++i) {
        const uint16_t* source = exact_->find(from + i);
        uint16_t* slot = source && std::abs(from - to) >= n ? exact_->adopt(to + i) : nullptr;
        if (slot && slot != source) std::memcpy(slot, source, sizeof(uint16_t) * layout_.n_embd);
    }
}

bool KvTensor::copy_within(size_t source_offset, size_t offset, size_t size) {
    const PackedLayout& a = layout_;
    if (offset % row_bytes_ != 0 || source_offset % row_bytes_ != 0 || size % row_bytes_ != 0) return false;
    const int64_t from = static_cast<int64_t>(source_offset / row_bytes_),
                  to = static_cast<int64_t>(offset / row_bytes_);
    const int64_t n = static_cast<int64_t>(size / row_bytes_);
    copy_centers(from, to, n);
    for (int64_t i = 0; i < n; ++i) {
        const int64_t at = from < to ? n - 1 - i : i;
        codec().copy(data_, (from + at) / a.n_cells, (from + at) % a.n_cells, (to + at) / a.n_cells,
                     (to + at) % a.n_cells);
    }
    if (exact_) copy_exact(from, to, n);
    return true;
}

}  // namespace tq::plugin
