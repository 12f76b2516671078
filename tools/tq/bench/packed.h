// TurboQuant as a contestant.
#pragma once

#include <memory>

#include "bench/contestant.h"
#include "bench/preset.h"
#include "bench/task.h"
#include "bench/team.h"
#include "turboquant/base/isa.h"

namespace tq::tool {

// Bytes of one layer's keys and values as they are allocated: codes, scales, and the slots of exact rows.
size_t packed_layer_bytes(const Task& task, const BenchPreset& preset);

// task and team must live as long. Error: what RowFormat, RowCodec or AttentionPlan say.
Result<std::unique_ptr<Contestant>> packed_attention(const Task& task, const BenchPreset& preset, Isa isa,
                                                     ThreadTeam& team);

// Encodes task.batch new rows of keys and values in each layer.
Result<std::unique_ptr<Contestant>> packed_encode(const Task& task, const BenchPreset& preset, Isa isa,
                                                  ThreadTeam& team);

}  // namespace tq::tool
