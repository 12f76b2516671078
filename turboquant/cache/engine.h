// What computes: the seam between the library's engine-agnostic layers and an engine (cpu/engine.h).
#pragma once

#include <memory>
#include <span>

#include "turboquant/base/isa.h"
#include "turboquant/base/status.h"
#include "turboquant/cache/block_codec.h"

namespace tq {

struct AttentionKernels;  // attention/kernels.h

enum class Device { kCpu };

struct Engine {
    Device device = Device::kCpu;
    Isa isa = Isa::kScalar;
    // channel_scales: format.n_embd of them (format/rotation.h), or none. Errors: kUnsupported (head_dim),
    // kInvalidArgument.
    Result<std::unique_ptr<BlockCodec>> (*make_codec)(const Engine& engine, const RowFormat& format, int head_dim,
                                                      std::span<const float> channel_scales) = nullptr;
    const AttentionKernels* attention = nullptr;
};

}  // namespace tq
