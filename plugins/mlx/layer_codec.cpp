#include "layer_codec.h"

#include "turboquant/cpu/engine.h"

namespace tq::mlx_plugin {
namespace {

Result<std::unique_ptr<BlockCodec>> make_codec(const Engine& engine, const Preset& preset, Side side,
                                               const LayerShape& shape, std::span<const float> scales) {
    const int64_t n_embd = int64_t{shape.n_head_kv} * shape.head_dim(side);
    Result<RowFormat> format = RowFormat::create(preset, side, n_embd);
    if (!format.ok()) return Status(format.status().error(), shape.name() + ": " + format.status().message());
    auto codec = engine.make_codec(engine, format.value(), shape.head_dim(side), scales);
    if (!codec.ok()) return Status(codec.status().error(), shape.name() + ": " + codec.status().message());
    return codec;
}

}  // namespace

std::string LayerShape::name() const {
    return std::to_string(n_head_kv) + " KV heads of " + std::to_string(head_dim_k) + " (keys) and " +
           std::to_string(head_dim_v) + " (values)";
}

Result<LayerCodecPtr> LayerCodec::create(const std::string& presets, int layer, const LayerShape& shape,
                                         std::span<const float> key_scales, std::span<const float> value_scales) {
    Result<LayerPresets> parsed = LayerPresets::parse(presets);
    if (!parsed.ok()) return parsed.status();
    Result<Isa> isa = select_isa_from_environment();
    if (!isa.ok()) return isa.status();

    std::shared_ptr<LayerCodec> made(new LayerCodec);
    made->engine_ = cpu_engine(isa.value());
    made->shape_ = shape;
    made->preset_ = parsed->of(layer);
    made->exact_ = parsed->exact();
    if (made->exact_.n_recent == 0)
        made->exact_.n_reserve = 0;
    else if (made->exact_.n_reserve == kReserveByLength)
        made->exact_.n_reserve = kReserve;
    made->keys_scaled_ = !key_scales.empty();
    made->values_scaled_ = !value_scales.empty();
    auto keys = make_codec(made->engine_, made->preset_, Side::kKey, shape, key_scales);
    if (!keys.ok()) return keys.status();
    auto values = make_codec(made->engine_, made->preset_, Side::kValue, shape, value_scales);
    if (!values.ok()) return values.status();
    made->keys_ = std::move(keys.value());
    made->values_ = std::move(values.value());
    return LayerCodecPtr(std::move(made));
}

double LayerCodec::effective_bits() const {
    const auto bytes = static_cast<double>(keys_->format().block_bytes() + values_->format().block_bytes());
    const auto values = static_cast<double>((keys_->format().n_embd + values_->format().n_embd) * kBlockCells);
    return 8 * bytes / values;
}

}  // namespace tq::mlx_plugin
