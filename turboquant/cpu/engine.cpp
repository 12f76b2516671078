#include "turboquant/cpu/engine.h"

#include "turboquant/cpu/attention/kernels_isa.h"
#include "turboquant/cpu/codec/row_codec.h"

namespace tq {
namespace {

Result<std::unique_ptr<BlockCodec>> make_codec(const Engine& engine, const RowFormat& format, int head_dim,
                                               std::span<const float> channel_scales) {
    Result<RowCodec> codec = RowCodec::create(format, head_dim, engine.isa, channel_scales);
    if (!codec.ok()) return codec.status();
    return std::unique_ptr<BlockCodec>(std::make_unique<RowCodec>(std::move(codec.value())));
}

}  // namespace

Engine cpu_engine(Isa isa) {
    return {Device::kCpu, isa, make_codec, &attention_kernels(isa)};
}

}  // namespace tq
