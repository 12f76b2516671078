// How one layer's cache is coded: its preset, its shape, and the codecs of its keys and values. Caches of one layer and
// the graph nodes made for them share one; it never changes.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "turboquant/cache/engine.h"
#include "turboquant/format/layer_presets.h"

namespace tq::mlx_plugin {

// Rows kept behind a window where the preset asks for no number: a cache here has no length to derive one from. So many
// tokens can be taken back (rejected drafts) and the window before them is still whole.
inline constexpr int kReserve = 16;

struct LayerShape {
    int n_head_kv = 0;
    int head_dim_k = 0;
    int head_dim_v = 0;

    int head_dim(Side side) const { return side == Side::kKey ? head_dim_k : head_dim_v; }
    std::string name() const;
};

class LayerCodec {
  public:
    // presets: as users write them ("fast"). The scales of a calibration: n_head_kv * head_dim each, or none.
    // Errors: kInvalidArgument, kUnsupported (head_dim).
    static Result<std::shared_ptr<const LayerCodec>> create(const std::string& presets, int layer,
                                                            const LayerShape& shape, std::span<const float> key_scales,
                                                            std::span<const float> value_scales);

    const Engine& engine() const { return engine_; }
    const LayerShape& shape() const { return shape_; }
    const Preset& preset() const { return preset_; }
    const ExactCells& exact() const { return exact_; }  // the reserve is a number
    const BlockCodec& side(Side side) const { return side == Side::kKey ? *keys_ : *values_; }

    // Says whether the side has channel scales, so that its heads differ.
    bool scaled(Side side) const { return side == Side::kKey ? keys_scaled_ : values_scaled_; }

    // Bits per value of whole blocks, keys and values together, without exact rows.
    double effective_bits() const;

  private:
    LayerCodec() = default;

    Engine engine_;
    LayerShape shape_;
    Preset preset_;
    ExactCells exact_;
    std::unique_ptr<BlockCodec> keys_, values_;
    bool keys_scaled_ = false, values_scaled_ = false;
};

using LayerCodecPtr = std::shared_ptr<const LayerCodec>;

}  // namespace tq::mlx_plugin
